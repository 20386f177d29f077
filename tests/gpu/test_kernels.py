"""The kernels as CUDA's compilers see them, which need no GPU."""

import functools
import pickle
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from emulator.build import cached
from emulator.driver import elf

from cvops import cli
from cvops._imports import load_nvrtc
from cvops._mxnet import build
from cvops.backends import nvrtc

ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
#: Those whose machine code is looked at.
DISASSEMBLED = [80, 90]
SOURCES = nvrtc.sources()
#: So that three blocks of 256 threads have room on every architecture.
MOST_REGISTERS = 80


def resources(log):
    """{kernel: (bytes of stack, of spills, registers)} of a report of ptxas."""
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers",
        log,
        re.DOTALL,
    )
    return {
        name: (int(stack), int(stores) + int(loads), int(registers))
        for name, stack, stores, loads, registers in found
    }


@pytest.fixture(scope="session")
def compiler():
    """CuPy's module of NVRTC."""
    pytest.importorskip("cupy")
    try:
        compiler = load_nvrtc()
        compiler.getVersion()  # CuPy looks for the library only now
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no NVRTC: {error}")
    return compiler


@pytest.fixture(scope="session")
def compiled(compiler):
    """compiled(source, arch): the machine code and ptxas's report, compiled once for all tests."""
    compile_cubin = nvrtc.compile_cubin  # not what a test may put in its place

    @functools.lru_cache(None)
    def compiled(source, arch):
        def make(path):
            made = compile_cubin(compiler, source, arch, ("--ptxas-options=-v",))
            path.write_bytes(pickle.dumps(made))

        key = nvrtc.source(source), *nvrtc.FLAGS, str(compiler.getVersion())
        return pickle.loads(cached(f"{source}-sm{arch}", ".pickle", key, make).read_bytes())

    return compiled


def check(source, arch, log, record_property):
    """No kernel spills; its registers go into the report."""
    used = resources(log)
    assert set(used) == set(nvrtc.kernels(source))
    for kernel, (stack, spills, registers) in sorted(used.items()):
        record_property(f"{kernel}, registers for {arch}", registers)
        assert (stack, spills) == (0, 0), kernel
        assert registers <= MOST_REGISTERS, kernel


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES)
def test_nvrtc_compiles_without_spills(compiled, source, arch, record_property):
    cubin, log = compiled(source, arch)
    assert cubin[:4] == b"\x7fELF"
    assert "warning" not in log, log
    check(source, f"sm_{arch}", log, record_property)


@pytest.mark.parametrize("source", SOURCES)
def test_nvcc_compiles_without_spills(source, record_property, tmp_path):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    code = tmp_path / f"{source}.cu"
    code.write_text(nvrtc.source(source))
    listing = [nvcc, "--list-gpu-code"]
    known = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    for arch in (arch for arch in (90, 100) if f"sm_{arch}\n" in known):
        flags = [*nvrtc.FLAGS, f"-arch=sm_{arch}", "-Xptxas=-v", "-cubin"]
        command = [nvcc, *flags, "-o", tmp_path / "cubin", code]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        check(source, f"nvcc-sm_{arch}", run.stderr, record_property)


@pytest.fixture(scope="session")
def sass(compiled, tmp_path_factory):
    """sass(source, arch): the machine code, per kernel."""
    wheels = Path(sysconfig.get_paths()["purelib"], "nvidia").glob("*/bin/nvdisasm")
    tool = shutil.which("nvdisasm") or next(map(str, wheels), None)
    if tool is None:
        pytest.skip("no nvdisasm")

    @functools.lru_cache(None)
    def disassemble(source, arch):
        file = tmp_path_factory.mktemp("sass") / f"{source}.cubin"
        file.write_bytes(compiled(source, arch)[0])
        text = subprocess.run([tool, "-c", file], check=True, capture_output=True, text=True).stdout
        parts = re.split(r"^\.text\.(\w+):$", text, flags=re.MULTILINE)[1:]
        code = dict(zip(parts[::2], parts[1::2]))
        assert set(code) == set(nvrtc.kernels(source))
        return code

    return disassemble


@pytest.mark.parametrize("arch", DISASSEMBLED)
@pytest.mark.parametrize("source", SOURCES)
def test_no_local_memory_and_no_fused_multiply_add(sass, source, arch):
    for kernel, code in sass(source, arch).items():
        assert not re.search(r"\b(LDL|STL)\b", code), kernel
        # The only FFMA are those of the division and the square root, which round once as they
        # should.
        if not re.search(r"MUFU\.(RCP|RSQ)", code):
            assert "FFMA" not in code, kernel


@pytest.mark.parametrize("arch", DISASSEMBLED)
def test_kernels_with_dynamic_shared_memory_have_no_static(compiled, arch):
    """So that a launch of up to 48 KiB of dynamic shared memory needs no permission."""
    dynamic = []
    for source in SOURCES:
        text = nvrtc.source(source)
        kernels = elf.kernels(compiled(source, arch)[0])
        for part in re.split(r'^extern "C" __global__', text, flags=re.MULTILINE)[1:]:
            name = re.search(r"(\w+)\(\w", part.partition("__launch_bounds__")[2])[1]
            if "CVOPS_DYNAMIC_SHARED" in part:
                assert kernels[name].static_shared == 0, name
                dynamic.append(name)
    assert "roi_pooling_staged" in dynamic
    assert elf.kernels(compiled("sort", arch)[0])["sort_tiles"].static_shared == 2 * 2048 * 8


#: They take exp or log, which is computed in double: see exp_log.cuh.
WITH_DOUBLES = {
    *("multibox_detection_gather", "multibox_detection_write"),
    *("multibox_target_refine", "multibox_target_write"),
}


@pytest.mark.parametrize("arch", DISASSEMBLED)
@pytest.mark.parametrize("source", SOURCES)
def test_doubles_only_where_they_are_meant(sass, source, arch):
    for kernel, code in sass(source, arch).items():
        has = bool(re.search(r"\b(DADD|DMUL|DFMA|DSETP|DMNMX)\b", code))
        assert has == (kernel in WITH_DOUBLES), kernel


@pytest.mark.parametrize("arch", DISASSEMBLED)
@pytest.mark.parametrize(
    ("kernel", "num"),
    [("nms_chunk", 2), ("nms_classes", 1)],  # a chunk's, and those before's with later boxes
)
def test_a_pair_of_the_suppression_takes_few_instructions(sass, kernel, num, arch):
    """From the load of four kept boxes to what tells a box whether any may suppress it.

    A pair takes ten: minima and maxima 5, differences and the sum of the shares 3, the product and
    its comparison. The division, of the pairs that are near the threshold, comes after it.
    """
    parts = re.split(r"^\.L_\w+:|BRA ", sass("nms", arch)[kernel], flags=re.MULTILINE)
    parts = [re.findall(r"/\*[0-9a-f]{4}\*/\s+(.*?);", part) for part in parts]
    loops = [part for part in parts if sum("FSETP.GEU" in text for text in part) == 4]
    assert len(loops) == num
    for code in loops:
        load = next(i for i, text in enumerate(code) if text.startswith("LDS.128"))
        assert sum(text.startswith("FMNMX") for text in code) == 20
        assert not any(text.startswith(("MUFU", "CALL")) for text in code)
        assert len(code[load:]) <= 4 * 14


@pytest.mark.parametrize("arch", DISASSEMBLED)
def test_a_step_of_the_sort_takes_few_instructions(sass, arch):
    """Four keys of 8 bytes each get to know another one's, by shuffles, and the better stays."""
    code = sass("sort", arch)["sort_tiles"]
    assert not re.search(r"\b(I2F|MUFU|CALL)\b", code)  # a division
    code = re.findall(r"/\*[0-9a-f]{4}\*/\s+(.*?);", code)
    shuffles = [i for i, text in enumerate(code) if text.startswith("SHFL.BFLY")]
    assert len(shuffles) == 8
    end = next(i for i, text in enumerate(code) if i > shuffles[0] and "BRA" in text)
    assert end - shuffles[0] <= 8 + 8 + 8 + 12  # to shuffle, to compare, to select, all else


@pytest.mark.parametrize("arch", DISASSEMBLED)
def test_the_searches_of_a_merge_wait_together(sass, arch):
    """Of two runs, and twice of four: a step's loads are all under way before one is looked at."""
    code = sass("sort", arch)["sort_merge"]
    assert not re.search(r"\b(I2F|MUFU)\b", code)
    steps = re.split(r"^\.L_\w+:|BRA ", code, flags=re.MULTILINE)
    steps = [re.findall(r"LDG|ISETP\.\w+\.U32", step) for step in steps]
    loads = sorted(step.count("LDG") for step in steps if step.count("LDG") and len(step) > 1)
    assert loads == [2, 4, 4]
    for step in steps:
        assert "LDG" not in step[step.count("LDG") :]


@pytest.mark.parametrize("arch", DISASSEMBLED)
def test_a_comparison_of_the_order_takes_few_instructions(sass, arch):
    """Of a key with four others, of which those that are lower are counted."""
    code = sass("box_nms", arch)["box_nms_rank"]
    assert not re.search(r"\b(I2F|MUFU|CALL)\b", code)
    loops = re.split(r"^\.L_\w+:|BRA ", code, flags=re.MULTILINE)
    loops = [re.findall(r"/\*[0-9a-f]{4}\*/\s+(.*?);", loop) for loop in loops]
    fours = [x for x in loops if sum(text.startswith("LDS") for text in x) == 4]
    assert fours
    assert min(len(x) for x in fours) <= 4 * 6


@pytest.mark.parametrize("arch", DISASSEMBLED)
def test_an_anchor_takes_few_instructions_and_no_division(sass, arch):
    """The loop that ends with a store of 16 bytes, with clipping and without it."""
    code = sass("multibox_prior", arch)["multibox_prior"]
    assert not re.search(r"\b(MUFU|CALL|F2I|I2F\.U32\.RP)\b", code)
    loops = re.split(r"^\.L_x_\d+:$", code, flags=re.MULTILINE)
    anchors = [re.findall(r"/\*[0-9a-f]{4}\*/\s+(.*?);", loop) for loop in loops]
    lengths = sorted(len(anchor) for anchor in anchors if any("STG" in x for x in anchor))
    assert len(re.findall(r"\bSTG\.E\.128\b", code)) == len(re.findall(r"\bSTG\b", code)) == 2
    assert lengths[0] <= 40
    assert lengths[1] <= 52


@pytest.mark.parametrize("arch", DISASSEMBLED)
def test_a_pixel_of_the_pooling_takes_few_instructions(sass, arch):
    """From the load of four channels' values on: for each a comparison and two selections.

    Of a value and of its place, the former by an addition, of which a GPU does twice as many.
    """
    code = re.findall(
        r"/\*[0-9a-f]{4}\*/\s+(.*?);", sass("roi_pooling", arch)["roi_pooling_staged"]
    )
    load = next(i for i, text in enumerate(code) if text.startswith("LDS.128"))
    size = next(i for i, text in enumerate(code[load:]) if "BRA" in text)
    pixel = code[load : load + size]
    assert sum(text.startswith("FSETP.GT") for text in pixel) == 4
    assert sum(bool(re.match(r"@!?P\d FADD", text)) for text in pixel) == 4
    assert size <= 20


@pytest.mark.parametrize("arch", DISASSEMBLED)
def test_four_pairs_of_the_assignment_take_few_instructions(sass, arch):
    """From the load of a truth to what tells the greatest of four IoUs in a warp.

    A pair that does not touch takes 8 of them: minima and maxima 4, differences 2, comparisons 2;
    one that does 12 more, most for the division.
    """
    code = re.findall(
        r"/\*[0-9a-f]{4}\*/\s+(.*?);", sass("multibox_target", arch)["multibox_target_match"]
    )
    end = next(i for i, text in enumerate(code) if re.match(r"REDUX\.MAX(\.U32)? ", text))
    load = max(i for i in range(end) if code[i].startswith("LDS.128"))
    pairs = code[load:end]
    assert sum(text.startswith("MUFU.RCP") for text in pairs) == 4
    assert sum("FMNMX" in text for text in pairs) == 4 * 4 + 3 + 4
    assert not any(re.search(r"\b(D[A-Z]+|FSEL)\b", text) for text in pairs)
    assert len(pairs) <= 155


@pytest.mark.parametrize("arch", DISASSEMBLED)
def test_a_rough_exponential_takes_few_instructions(sass, arch):
    """The difference, its product, the exponential and the sum; the loads and their addresses."""
    code = sass("mining", arch)["multibox_target_score"]
    exponentials = len(re.findall(r"MUFU\.EX2", code))
    assert len(re.findall(r"FMUL", code)) == exponentials
    assert len(re.findall(r"FADD", code)) <= 2 * exponentials + 16
    # In fives, then one by one, of rows that begin at 16 bytes and of others.
    assert exponentials >= 2 * 4 * 6


@pytest.mark.parametrize("arch", DISASSEMBLED)
@pytest.mark.parametrize(
    ("source", "kernel", "instruction"),
    [
        ("bilinear_upsample", "bilinear_upsample", r"STG\.E\.128"),
        ("box_iou", "box_iou", r"LDG\.E\.128"),
        ("box_iou", "box_iou", r"STG\.E\.EF\.128"),
        ("confusion_matrix", "confusion_matrix", r"LDG\.E\.128"),
        ("label_from_color", "label_from_color", r"STG\.E\.128"),
        ("multibox_prior", "multibox_prior", r"STG\.E\.128"),
        ("nms", "nms_chunk", r"LDG\.E\.128"),
        ("nms", "nms_chunk", r"LDS\.128"),
        ("roi_pooling", "roi_pooling_staged", r"LDS\.128"),
        ("multibox_target", "multibox_target_match", r"LDG\.E\.128"),
        ("multibox_target", "multibox_target_match", r"LDS\.128"),
        ("multibox_target", "multibox_target_match", r"STG\.E\.128"),
        ("mining", "multibox_target_score", r"LDG\.E\.EF\.128"),
        ("mining", "multibox_target_score", r"STG\.E\.128"),
        ("mining", "multibox_target_refine", r"LDG\.E\.128"),
        ("multibox_target", "multibox_target_write", r"STG\.E\.128"),
        ("multibox_detection", "multibox_detection_write", r"STG\.E\.64"),
        ("multiclass_nms", "multiclass_nms_write", r"STG\.E\.64"),
    ],
)
def test_wide_loads_and_stores(sass, source, kernel, instruction, arch):
    assert re.search(instruction, sass(source, arch)[kernel])


@pytest.mark.parametrize("arch", DISASSEMBLED)
def test_scores_are_loaded_before_any_is_looked_at(sass, arch):
    """So that each thread of the pass over all scores has 64 bytes under way."""
    code = re.findall(r"/\*[0-9a-f]{4}\*/\s+(.*?);", sass("topk", arch)["topk_collect"])
    loads = [i for i, text in enumerate(code) if text.startswith("LDG.E.128")]
    assert len(loads) == 4
    assert loads[3] - loads[0] <= 6


@pytest.mark.parametrize("arch", DISASSEMBLED)
@pytest.mark.parametrize("kernel", ["topk_sample", "topk_select"])
def test_a_selection_divides_nothing_and_repeats_no_atomic(sass, kernel, arch):
    """Which shared memory has for 32 bits only."""
    assert not re.search(r"\b(I2F|MUFU)\b|\bATOMS\.CAS", sass("topk", arch)[kernel])


def test_a_header_that_is_included_twice_stands_once():
    text = nvrtc.source("multibox_detection")
    assert text.count("struct SizedBox {") == 1
    assert "#include" not in text.replace("#include <cmath>", "")
    assert '#line 1 "exp_log.cuh"' in text


def test_the_kernels_of_a_file_are_its_own():
    assert nvrtc.kernels("box_iou") == ("box_iou",)
    assert "nms_chunk" not in nvrtc.kernels("multiclass_nms")
    assert nvrtc.source_of("nms_chunk") == "nms"
    names = [kernel for source in SOURCES for kernel in nvrtc.kernels(source)]
    assert len(names) == len(set(names))


def test_an_error_names_the_true_file(compiler, monkeypatch):
    text = nvrtc.source("box_iou").replace("float overlap = ", "flaot overlap = ")
    monkeypatch.setattr(nvrtc, "source", lambda name: text)
    message = r"box_iou\.cuh does not compile for sm_90[\s\S]*box_iou\.cuh\(\d+\)"
    with pytest.raises(RuntimeError, match=message):
        nvrtc.compile_cubin(compiler, "box_iou", 90)


def test_the_cache_notices_an_edit(compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("CVOPS_CACHE_DIR", str(tmp_path))
    first = nvrtc.cubin_file("box_iou", 90)
    assert first.read_bytes()[:4] == b"\x7fELF"
    assert nvrtc.cubin_file("box_iou", 90) == first
    text = nvrtc.source("box_iou") + "\n// edited\n"
    monkeypatch.setattr(nvrtc, "source", lambda name: text)
    assert nvrtc.cubin_file("box_iou", 90) != first
    assert len(list(tmp_path.iterdir())) == 2


class TestWarmup:
    @pytest.fixture(autouse=True)
    def cache(self, compiled, monkeypatch, tmp_path):
        monkeypatch.setenv("CVOPS_CACHE_DIR", str(tmp_path))
        monkeypatch.setattr(nvrtc, "compile_cubin", lambda _, *what: compiled(*what))
        monkeypatch.setattr(build, "build", lambda: tmp_path / "operators")
        monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: name)  # MXNet or none
        self.folder = tmp_path

    def files(self):
        return sorted(self.folder.iterdir())

    def test_every_kernel_is_compiled_once(self, capsys):
        assert cli.main(["warmup", "--arch", "80", "90"]) == 0
        made = self.files()
        assert len(made) == 2 * len(SOURCES)
        *kernels, operators = capsys.readouterr().out.splitlines()
        assert sorted(kernels) == list(map(str, made))
        assert operators == str(self.folder / "operators")
        times = [file.stat().st_mtime_ns for file in made]
        assert cli.main(["warmup", "--arch", "80", "90"]) == 0
        assert [file.stat().st_mtime_ns for file in self.files()] == times

    def test_the_gpus_that_are_here(self, monkeypatch):
        monkeypatch.setattr(nvrtc, "architectures", lambda: [86])
        assert cli.main(["warmup"]) == 0
        assert {file.name.split("-")[1] for file in self.files()} == {"sm86"}

    def test_no_gpu(self, monkeypatch, capsys):
        monkeypatch.setattr(nvrtc, "architectures", lambda: [])
        assert cli.main(["warmup"]) == 0
        assert "there is no GPU here; --arch 90" in capsys.readouterr().out
        assert self.files() == []

    def test_an_architecture_that_is_none(self, capsys):
        assert cli.main(["warmup", "--arch", "1"]) == 2
        assert "cvops: the kernels for sm_1: " in capsys.readouterr().err
