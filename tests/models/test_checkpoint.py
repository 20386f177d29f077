"""Checkpoints: a resumed training has the bits of one without a stop; bad files."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import io
import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet")

from cvops import checkpoint, launch
from cvops._mxnet import mxnet
from cvops.checkpoint import _checks

mx = mxnet()
CPU = [mx.cpu()]
HERE = Path(__file__).parent
#: The environment of a process that imports this file.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent)))}


def make(devices=CPU, units=3, optimizer="sgd", store=(), **options):
    """A small network with running means, and its trainer, with the arguments ``store``."""
    net = mx.gluon.nn.HybridSequential()
    net.add(
        mx.gluon.nn.Dense(4, in_units=2), mx.gluon.nn.BatchNorm(in_channels=4),
        mx.gluon.nn.Dropout(0.5), mx.gluon.nn.Dense(units, in_units=4),
    )  # fmt: skip
    net.initialize(mx.init.Xavier(), ctx=devices)
    if optimizer == "sgd":
        options = {"momentum": 0.9, "wd": 0.01, **options}
    schedule = mx.lr_scheduler.FactorScheduler(step=1, factor=0.7, base_lr=0.1)
    options = {"learning_rate": 0.1, "lr_scheduler": schedule, **options}
    return net, mx.gluon.Trainer(net.collect_params(), optimizer, options, **dict(store))


def train(net, trainer, steps, devices=CPU):
    """Make a step for each number in ``steps``, with data from all three random generators."""
    losses = []
    for step in steps:
        checkpoint.seed_all(7, step)
        images = np.random.rand(6, 2) + random.random() + mx.nd.random.uniform().asscalar()
        parts = mx.gluon.utils.split_and_load(images.astype(np.float32), devices)
        with mx.autograd.record():
            outs = [(net(part) ** 2).sum() for part in parts]
        mx.autograd.backward(outs)
        trainer.step(6)
        losses.append(sum(out.asscalar() for out in outs))
    return losses


def values(net):
    """The copies of each parameter on the devices."""
    parameters = net._collect_params_with_prefix()
    return {name: [x.asnumpy() for x in p.list_data()] for name, p in parameters.items()}


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, copies in ours.items():
        np.testing.assert_array_equal(copies, theirs[name], err_msg=name)


@pytest.fixture
def start():
    mx.random.seed(3)


@pytest.mark.parametrize(
    "devices", [CPU, [mx.cpu(0), mx.cpu(1)]], ids=["one device", "two devices"]
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "nadam", "rmsprop"])
def test_training_resumes_to_the_same_bits(tmp_path, start, optimizer, devices):
    net, trainer = make(devices, optimizer=optimizer)
    train(net, trainer, (0, 1), devices)
    checkpoint.save(tmp_path / "two", net, trainer, epoch=2, losses=[0.5])
    losses = train(net, trainer, (2, 3), devices)
    generators = random.random(), np.random.rand()

    again, its_trainer = make(devices, optimizer=optimizer)
    assert checkpoint.load(tmp_path / "two", again, its_trainer) == {"epoch": 2, "losses": [0.5]}
    # The schedule applies its factor once by step 2.
    assert its_trainer.learning_rate == pytest.approx(0.1 * 0.7)
    assert train(again, its_trainer, (2, 3), devices) == losses
    assert_equal(values(again), values(net))
    assert (random.random(), np.random.rand()) == generators


@pytest.mark.parametrize(
    ("kvstore", "on_store"),
    [(None, None), ("local", True), ("local", False), ("device", True), ("device", False)],
)
def test_training_resumes_with_any_local_kvstore(tmp_path, start, kvstore, on_store):
    devices = CPU if kvstore is None else [mx.cpu(0), mx.cpu(1)]
    store = {"kvstore": kvstore, "update_on_kvstore": on_store}
    net, trainer = make(devices, store=store)
    train(net, trainer, (0, 1), devices)
    assert trainer._update_on_kvstore is on_store
    checkpoint.save(tmp_path / "two", net, trainer)
    losses = train(net, trainer, (2, 3), devices)

    again, its_trainer = make(devices, store=store)
    checkpoint.load(tmp_path / "two", again, its_trainer)
    assert train(again, its_trainer, (2, 3), devices) == losses
    assert_equal(values(again), values(net))


def test_training_resumes_in_another_process_to_the_same_bits(tmp_path, start):
    """The other process makes other blocks first, which changes the names of the parameters."""
    net, trainer = make()
    train(net, trainer, (0, 1))
    checkpoint.save(tmp_path / "two", net, trainer)
    train(net, trainer, (2, 3))
    script = """if True:
        import sys
        import test_checkpoint as t
        for _ in range(11):
            t.make()
        net, trainer = t.make()
        t.checkpoint.load(sys.argv[1], net, trainer)
        t.train(net, trainer, (2, 3))
        t.checkpoint.save(sys.argv[2], net, trainer)
        """
    arguments = [sys.executable, "-c", script, tmp_path / "two", tmp_path / "four"]
    subprocess.run(arguments, check=True, env=ENVIRONMENT)
    again, its_trainer = make()
    checkpoint.load(tmp_path / "four", again, its_trainer)
    assert_equal(values(again), values(net))


def test_load_restores_the_state_of_the_same_objects(tmp_path, start):
    devices = [mx.cpu(0), mx.cpu(1)]  # for two devices the store of the trainer has copies
    net, trainer = make(devices)
    train(net, trainer, (0, 1), devices)
    checkpoint.save(tmp_path / "two", net, trainer)
    train(net, trainer, (2, 3), devices)
    expected = values(net)
    checkpoint.load(tmp_path / "two", net, trainer)
    train(net, trainer, (2, 3), devices)
    assert_equal(values(net), expected)


def test_checkpoint_before_the_first_step_resumes_to_the_same_bits(tmp_path, start):
    net, trainer = make()
    checkpoint.save(tmp_path / "none", net, trainer)
    again, its_trainer = make()
    checkpoint.load(tmp_path / "none", again, its_trainer)
    assert train(again, its_trainer, (0, 1)) == train(net, trainer, (0, 1))


def test_checkpoint_of_two_devices_loads_onto_one(tmp_path, start):
    """Running means differ between the devices. The one device gets their mean."""
    devices = [mx.cpu(0), mx.cpu(1)]
    net, trainer = make(devices)
    train(net, trainer, (0, 1), devices)
    checkpoint.save(tmp_path / "two", net, trainer)
    one, its_trainer = make()
    checkpoint.load(tmp_path / "two", one, its_trainer)
    ours, theirs = values(one), values(net)
    first, second = theirs.pop("1.running_mean")
    assert (first != second).any()
    np.testing.assert_allclose(ours.pop("1.running_mean")[0], (first + second) / 2, rtol=1e-6)
    np.testing.assert_array_equal(ours["0.weight"][0], theirs["0.weight"][0])
    train(one, its_trainer, (2,))


def test_checkpoint_after_a_backward_has_its_running_means(tmp_path, start):
    """The backward of a static graph writes them, and MXNet does not wait for it."""
    net = mx.gluon.nn.HybridSequential()
    net.add(
        mx.gluon.nn.Conv2D(16, 3, in_channels=3), mx.gluon.nn.BatchNorm(in_channels=16),
        mx.gluon.nn.Conv2D(16, 3, in_channels=16),
    )  # fmt: skip
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd")
    for _ in range(6):
        with mx.autograd.record():
            out = net(mx.nd.random.uniform(shape=(2, 3, 64, 64)))
        out.backward()
        checkpoint.save(tmp_path / "step", net, trainer)
        mx.nd.waitall()
        with zipfile.ZipFile(tmp_path / "step") as archive:
            saved = np.load(io.BytesIO(archive.read("parameters/1.running_mean.npy")))
        np.testing.assert_array_equal(saved, values(net)["1.running_mean"])


def test_load_restores_the_random_generators(tmp_path):
    net, trainer = make()
    checkpoint.seed_all(0, 1)
    np.random.randn()  # keeps a second normal number for the next call
    checkpoint.save(tmp_path / "saved", net, trainer)
    expected = random.gauss(0, 1), np.random.randn(), np.random.rand()
    checkpoint.seed_all(0, 2)
    checkpoint.load(tmp_path / "saved", net, trainer)
    assert (random.gauss(0, 1), np.random.randn(), np.random.rand()) == expected


def test_seeds_of_each_epoch_are_different():
    seen = set()
    for seed in (0, 1):
        for epoch in (0, 1):
            checkpoint.seed_all(seed, epoch)
            numbers = random.random(), np.random.rand(), mx.nd.random.uniform().asscalar()
            seen.update(numbers)
            checkpoint.seed_all(seed, epoch)
            assert numbers[0] == random.random()
            assert numbers[1] == np.random.rand()
            assert numbers[2] == mx.nd.random.uniform().asscalar()
    assert len(seen) == 12


# --- failed writes, damaged files, other networks -------------------------------------------------


@pytest.fixture
def saved(tmp_path, start):
    """A checkpoint, and its network and trainer."""
    net, trainer = make()
    train(net, trainer, (0, 1))
    checkpoint.save(tmp_path / "good", net, trainer, epoch=2)
    return tmp_path / "good", net, trainer


@pytest.mark.parametrize("fails", ["write_array", "fsync", "replace"])
def test_failed_save_keeps_the_old_file(saved, monkeypatch, fails):
    path, net, trainer = saved
    before = path.read_bytes()
    calls = []

    def fail(*_, **__):
        calls.append(fails)
        raise OSError("no space left")

    if fails == "write_array":  # after two arrays
        write = np.lib.format.write_array
        several = iter([write, write])
        monkeypatch.setattr(np.lib.format, fails, lambda *a, **k: next(several, fail)(*a, **k))
    else:
        monkeypatch.setattr(checkpoint.os, fails, fail)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save(path, net, trainer, epoch=3)
    assert calls
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    monkeypatch.undo()
    assert checkpoint.load(path, *make())["epoch"] == 2


def test_killed_save_keeps_the_old_file(saved):
    path, net, trainer = saved
    script = """if True:
        import os, signal, sys
        import test_checkpoint as t
        t.checkpoint.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        t.checkpoint.save(sys.argv[1], *t.make(), epoch=3)
        """
    done = subprocess.run([sys.executable, "-c", script, path], env=ENVIRONMENT)
    assert done.returncode == -9
    assert path.with_name("good.part").exists()  # the kill came during the write
    assert checkpoint.load(path, *make())["epoch"] == 2
    checkpoint.save(path, net, trainer, epoch=4)
    assert list(path.parent.iterdir()) == [path]
    assert checkpoint.load(path, *make())["epoch"] == 4


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    """Change one bit of a weight."""
    at = data.index(b"NUMPY") + 150
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [cut, flip, lambda data: b"", lambda data: b"text"],
    ids=["truncated", "one bit", "empty", "text"],
)
def test_damaged_file_is_rejected(saved, damage):
    path, net, trainer = saved
    path.write_bytes(damage(path.read_bytes()))
    before = values(net)
    with pytest.raises(checkpoint.CheckpointError, match=r"good: damaged, or not a checkpoint: "):
        checkpoint.load(path, net, trainer)
    assert_equal(values(net), before)


def header(shape, dtype="<f4"):
    """The bytes of a ``.npy`` file without values."""
    file = io.BytesIO()
    what = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, what)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def spoil(path, entry=None, data=b"", compress=False, **values):
    """Replace values of the JSON object (a None removes one), and the bytes of an entry."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    content = json.loads(entries["checkpoint.json"])
    for name, value in values.items():
        content[name.replace("_", " ")] = value
    entries["checkpoint.json"] = json.dumps({k: v for k, v in content.items() if v is not None})
    if entry is not None:
        entries[f"{entry}.npy"] = data
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, value in entries.items():
            if value is not None:
                archive.writestr(name, value)


WEIGHT, MOMENTUM = "parameters/0.weight", "optimizer/0.weight"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"state": None}, "state: expected a dict, got None"),
        ({"state": [1]}, "state: expected a dict"),
        ({"optimizer": None}, "optimizer: expected a str, got None"),
        ({"optimizer": "Adam"}, "optimizer: expected SGD, got Adam"),
        ({"optimizer_numbers": None}, "optimizer numbers: expected a dict"),
        ({"optimizer_numbers": {}}, "optimizer: expected the number .*, got none"),
        ({"optimizer_numbers": {"update": 1.0}}, "optimizer: expected the number"),
        ({"optimizer_counts": {"0.weight": -1}}, "expected a count of 0.weight, got -1"),
        ({"optimizer_counts": {"0.weight": "x"}}, "expected a count of 0.weight, got 'x'"),
        ({"optimizer_counts": {"9.weight": 1}}, "the trainer has no parameter 9.weight"),
        ({"optimizer_states": {"9.weight": None}}, "the trainer has no parameter 9.weight"),
        (
            {"optimizer_states": {"0.weight": None}},
            "state of 0.weight: expected an array",
        ),
        ({"optimizer_states": {"0.weight": "none"}}, "expected the name of an array, got 'none'"),
        ({"optimizer_states": {"0.weight": [1]}}, "expected the name of an array"),
        ({"schedule": "Odd"}, "schedule: expected FactorScheduler, got Odd"),
        ({"schedule_state": {}}, "schedule: expected .*, got "),
        ({"random": []}, "random: expected a state"),
        ({"random": [3, [1, 2], None]}, "random: expected a state"),
        ({"random": [3, [0] * 624 + [9999], None]}, "random: expected a state"),
        ({"numpy.random": ["PCG64", 0, 0, 0.0]}, "numpy.random: expected a state of MT19937"),
        ({"numpy.random": ["MT19937", 9999, 0, 0.0]}, "numpy.random: expected a state of MT19937"),
        ({"numpy.random": ["MT19937", 1]}, "numpy.random: expected a state of MT19937"),
        ({"entry": "numpy.random", "data": npy(np.zeros(3, np.uint32))}, "numpy.random: expected"),
        ({"entry": "numpy.random", "data": None}, "numpy.random: expected"),
        ({"entry": MOMENTUM, "data": npy(np.zeros((1, 8), "f4"))}, r"expected float32 \(4, 2\)"),
        ({"entry": MOMENTUM, "data": npy(np.zeros((4, 2), "f8"))}, "got float64"),
        ({"entry": WEIGHT, "data": npy(np.zeros((0, 4, 2), "f4"))}, "0.weight: expected values"),
        ({"entry": WEIGHT, "data": npy(np.float32(1))}, "0.weight: expected values"),
        ({"entry": WEIGHT, "data": header((1, 4, 2**31))}, "damaged.*expected 0 bytes"),
        ({"entry": WEIGHT, "data": header((2**40,))}, "damaged.*expected 0 bytes"),
        ({"entry": WEIGHT, "data": header((-1, 4, 2))}, "damaged"),
        ({"entry": WEIGHT, "data": header((1,), "|O")}, "damaged"),
        ({"entry": WEIGHT, "data": b"text"}, "damaged"),
        ({"entry": WEIGHT, "data": None}, "the checkpoint has no parameter 0.weight"),
        ({"compress": True}, "damaged.*expected no compression"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(map(str, value))[:40],
)
def test_spoilt_content_is_rejected_before_anything_changes(saved, what, message):
    path, net, trainer = saved
    spoil(path, **what)
    before, states = values(net), random.getstate()
    momenta = {i: x.asnumpy() for i, x in trainer._updaters[0].states.items()}
    with pytest.raises(checkpoint.CheckpointError, match=f"good: .*{message}"):
        checkpoint.load(path, net, trainer)
    assert_equal(values(net), before)
    assert random.getstate() == states
    for i, momentum in momenta.items():
        np.testing.assert_array_equal(trainer._updaters[0].states[i].asnumpy(), momentum)


def test_attribute_of_the_optimizer_that_is_no_number_is_rejected(saved):
    path, net, trainer = saved
    numbers = {**_checks.numbers(trainer._optimizer), "update": 1.0}
    spoil(path, optimizer_numbers=numbers)
    with pytest.raises(checkpoint.CheckpointError, match="got an attribute update"):
        checkpoint.load(path, net, trainer)


@pytest.mark.parametrize("path", ["folder", "/dev/zero"])
def test_path_that_is_no_file_is_rejected(tmp_path, path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(checkpoint.CheckpointError, match=r"expected a file, got a (folder|device)"):
        checkpoint.load(tmp_path / path, *make())


def test_json_of_deep_nesting_is_rejected(saved):
    path, net, trainer = saved
    spoil(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("checkpoint.json", "[" * 200_000)
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        checkpoint.load(path, net, trainer)


def test_path_that_cannot_be_written_is_rejected(tmp_path):
    checkpoint.check_path(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="none/new: cannot be written: No such file"):
        checkpoint.check_path(tmp_path / "none" / "new")
    with pytest.raises(IsADirectoryError, match="expected a file, got a folder"):
        checkpoint.check_path(tmp_path)


def test_other_zip_file_is_rejected(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("checkpoint.json", json.dumps({"format": "another"}))
    message = r"other.zip: damaged.*format: expected 'cvops checkpoint 1', got 'another'"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.load(tmp_path / "other.zip", *make())


def test_missing_file_is_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        checkpoint.load(tmp_path / "none", *make())


def more_outputs():
    net, trainer = make(units=5)
    return net, trainer, "parameter 3.weight: expected float32 (5, 4), got float32 (3, 4)"


def more_layers():
    net, _ = make()
    net.add(mx.gluon.nn.Dense(1, in_units=3))
    net[4].initialize()
    message = "the checkpoint has no parameter 4.bias"
    return net, mx.gluon.Trainer(net.collect_params(), "sgd"), message


def fewer_layers():
    net, _ = make()
    part = net[:2]
    message = "the network has no parameter 3.bias"
    return part, mx.gluon.Trainer(part.collect_params(), "sgd"), message


def float16_weights():
    net, trainer = make()
    net.cast("float16")
    message = "parameter 0.weight: expected float16 (4, 2), got float32 (4, 2)"
    return net, trainer, message


def adam_optimizer():
    return *make(optimizer="adam"), "optimizer: expected Adam, got SGD"


def no_schedule():
    return *make(lr_scheduler=None), "schedule: expected NoneType, got FactorScheduler"


def trainer_of_one_layer():
    net, _ = make()
    trainer = mx.gluon.Trainer(
        net[3].collect_params(),
        "sgd",
        {"lr_scheduler": mx.lr_scheduler.FactorScheduler(1), "learning_rate": 0.01},
    )
    return net, trainer, "the trainer has no parameter 0.bias"


@pytest.mark.parametrize(
    "other",
    [
        more_outputs,
        more_layers,
        fewer_layers,
        float16_weights,
        adam_optimizer,
        no_schedule,
        trainer_of_one_layer,
    ],
)
def test_checkpoint_of_another_network_or_optimizer_is_rejected(saved, other):
    path, _, _ = saved
    net, trainer, message = other()
    before = values(net)
    with pytest.raises(checkpoint.CheckpointError) as refused:
        checkpoint.load(path, net, trainer)
    assert str(refused.value) == f"{path}: {message}"
    assert_equal(values(net), before)


def test_trainer_of_another_network_is_rejected(tmp_path):
    (net, _), (_, trainer) = make(), make()
    with pytest.raises(ValueError, match=r"trainer: expected parameters of the network, got \S+"):
        checkpoint.save(tmp_path / "none", net, trainer)


def test_state_that_is_not_json_is_rejected(saved):
    path, net, trainer = saved
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.save(path, net, trainer, epoch=mx.cpu())
    assert checkpoint.load(path, net, trainer)["epoch"] == 2


WORKER = """
import sys
from cvops import checkpoint, distributed
import mxnet as mx

with distributed.join() as worker:
    net = mx.gluon.nn.Dense(3, in_units=4)
    net.initialize()
    about = {"learning_rate": 0.1, "momentum": 0.9}
    kvstore = worker.trainer_options["kvstore"]
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", about, kvstore=kvstore)
    for stepped in (False, True):
        for call in (checkpoint.save, checkpoint.load):
            try:
                call(sys.argv[1], net, trainer)
            except ValueError as error:
                print(stepped, error)
        with mx.autograd.record():
            loss = (net(mx.nd.ones((2, 4))) ** 2).sum()
        loss.backward()
        trainer.step(2)
    mx.nd.waitall()
"""


def test_optimizer_state_on_a_server_is_rejected(tmp_path, capsys):
    path = tmp_path / "checkpoint"
    assert launch.run(["python", "-c", WORKER, str(path)], 1) == 0
    lines = [line.split("[worker 0] ")[1] for line in capsys.readouterr().out.splitlines()]
    assert [line.split()[0] for line in lines] == ["False", "False", "True", "True"]
    for line in lines:
        assert "trainer: expected one that updates in its own process" in line
        assert "'dist_sync'" in line
        assert "SGD" in line
        assert line.endswith("update_on_kvstore=False)")
    assert not list(tmp_path.iterdir())
