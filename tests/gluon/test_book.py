"""The code of "Dive into Deep Learning" (first edition, for Gluon), sections 9.1 to 9.11.

The calls, their order and the paths are the book's. The imports differ: ``contrib`` and ``d2l``
come from cvops. The data are small files with the book's names. ResNet-18 and VGG-19 have random
weights, because their pretrained weights are a download.
"""

# ruff: noqa: E402 (imports below the skip of this file)

import os
import time

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "matplotlib")

from cvops import classification, contrib, data, voc
from cvops._mxnet import mxnet
from cvops.models import losses

mx = mxnet()
from mxnet import autograd, gluon, image, init, nd
from mxnet.gluon import data as gdata
from mxnet.gluon import loss as gloss
from mxnet.gluon import model_zoo, nn


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of the chapter, next to the folders ``img`` and ``data`` of the book."""
    root = tmp_path_factory.mktemp("book")
    for name in ("chapter", "img", "data/pikachu"):
        (root / name).mkdir(parents=True)
    data.photograph("chelsea.png").resize((728, 561)).save(root / "img/catdog.jpg")
    data.photograph("chelsea.png").resize((100, 75)).save(root / "img/cat1.jpg")
    data.photograph("coffee.png").resize((96, 64)).save(root / "img/pikachu.jpg")
    pikachu = root / "data/pikachu"
    data.write_record(pikachu / "train.rec", data.TRAIN_PHOTOS, count=10, seed=0, side=64)
    data.write_record(pikachu / "val.rec", data.TEST_PHOTOS, count=5, seed=1, side=64)
    (pikachu / "val.idx").unlink()  # the book's data have no such file
    hotdog = classification.make_image_folders(
        root / "data/hotdog", ("bee", "frog"), 16, 8, side=40
    )
    for part in ("train", "test"):
        (hotdog / part / "bee").rename(hotdog / part / "hotdog")
        (hotdog / part / "frog").rename(hotdog / part / "not-hotdog")
    voc.make_voc(root / "data", train=6, val=4, size=(340, 500))
    return root / "chapter"


@pytest.fixture
def d2l(folder, monkeypatch):
    """The module in the place of ``d2lzh``, in the folder of the chapter."""
    import matplotlib

    from cvops import d2l

    matplotlib.use("Agg")
    monkeypatch.chdir(folder)
    with matplotlib.rc_context():
        yield d2l
    d2l.plt.close("all")


# --- names of MXNet's modules ---------------------------------------------------------------------


def test_contrib_has_the_names_of_mxnets_modules(operators):
    import cvops.contrib.symbol
    from cvops.contrib.ndarray import MultiBoxPrior
    from cvops.contrib.symbol import box_nms

    assert MultiBoxPrior is contrib.nd.MultiBoxPrior is contrib.ndarray.MultiBoxPrior
    assert MultiBoxPrior is contrib.MultiBoxPrior is cvops.multibox_prior
    assert box_nms is contrib.sym.box_nms
    assert contrib.sym is contrib.symbol is cvops.contrib.symbol
    for name in contrib.__all__:
        assert getattr(contrib.nd, name) is getattr(contrib, name)
        assert getattr(contrib.sym, name) is getattr(mx.sym.contrib, f"cvops_{name}")
    with pytest.raises(AttributeError, match=r"'cvops.contrib.symbol' has no attribute 'fft'"):
        _ = contrib.symbol.fft


def test_contrib_gives_equal_results_for_symbols_and_arrays(operators):
    x = nd.zeros((1, 3, 4, 6))
    prior = contrib.sym.MultiBoxPrior(mx.sym.var("x"), sizes=(0.5, 0.2), ratios=(1, 2))
    (anchors,) = prior.eval(x=x)
    expected = contrib.nd.MultiBoxPrior(x, sizes=(0.5, 0.2), ratios=(1, 2))
    np.testing.assert_array_equal(anchors.asnumpy(), expected.asnumpy())


# --- 9.1 image augmentation -----------------------------------------------------------------------


@pytest.fixture
def cifar10(tmp_path, d2l, monkeypatch):
    """A made set in the place of CIFAR-10. Gluon's class would compare its sums and download."""
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    classification.make_cifar10(tmp_path / "datasets/cifar10", train=40, test=20)
    monkeypatch.setattr(gdata.vision, "CIFAR10", d2l.CIFAR10)


def test_section_9_1_shows_augmented_images(d2l, cifar10):
    d2l.set_figsize()
    img = image.imread("../img/cat1.jpg")
    d2l.plt.imshow(img.asnumpy())

    def show_images(imgs, num_rows, num_cols, scale=2):
        figsize = (num_cols * scale, num_rows * scale)
        _, axes = d2l.plt.subplots(num_rows, num_cols, figsize=figsize)
        for i in range(num_rows):
            for j in range(num_cols):
                axes[i][j].imshow(imgs[i * num_cols + j].asnumpy())
                axes[i][j].axes.get_xaxis().set_visible(False)
                axes[i][j].axes.get_yaxis().set_visible(False)
        return axes

    def apply(img, aug, num_rows=2, num_cols=4, scale=1.5):
        Y = [aug(img) for _ in range(num_rows * num_cols)]
        show_images(Y, num_rows, num_cols, scale)

    color_aug = gdata.vision.transforms.RandomColorJitter(
        brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5
    )
    shape_aug = gdata.vision.transforms.RandomResizedCrop(
        (200, 200), scale=(0.1, 1), ratio=(0.5, 2)
    )
    augs = gdata.vision.transforms.Compose(
        [gdata.vision.transforms.RandomFlipLeftRight(), color_aug, shape_aug]
    )
    for aug in (
        gdata.vision.transforms.RandomFlipLeftRight(),
        gdata.vision.transforms.RandomFlipTopBottom(),
        shape_aug,
        gdata.vision.transforms.RandomBrightness(0.5),
        gdata.vision.transforms.RandomHue(0.5),
        color_aug,
        augs,
    ):
        apply(img, aug)
        assert len(d2l.plt.gcf().axes) == 8
        d2l.plt.close()
    d2l.apply(img, augs)
    assert d2l.plt.gcf().get_size_inches().tolist() == [6, 3]
    axes = d2l.show_images(gdata.vision.CIFAR10(train=True)[0:32][0], 4, 8, scale=0.8)
    assert axes.shape == (4, 8)


def test_section_9_1_trains_with_augmentation(d2l, cifar10, capsys):
    flip_aug = gdata.vision.transforms.Compose(
        [gdata.vision.transforms.RandomFlipLeftRight(), gdata.vision.transforms.ToTensor()]
    )
    no_aug = gdata.vision.transforms.Compose([gdata.vision.transforms.ToTensor()])
    num_workers = 0

    def load_cifar10(is_train, augs, batch_size):
        return gdata.DataLoader(
            gdata.vision.CIFAR10(train=is_train).transform_first(augs),
            batch_size=batch_size,
            shuffle=is_train,
            num_workers=num_workers,
        )

    def train_with_data_aug(train_augs, test_augs, lr=0.001):
        batch_size, ctx, net = 20, d2l.try_all_gpus(), d2l.resnet18(10)
        net.initialize(ctx=ctx, init=init.Xavier())
        trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": lr})
        loss = gloss.SoftmaxCrossEntropyLoss()
        train_iter = load_cifar10(True, train_augs, batch_size)
        test_iter = load_cifar10(False, test_augs, batch_size)
        d2l.train(train_iter, test_iter, net, loss, trainer, ctx, num_epochs=1)
        accuracy = d2l.evaluate_accuracy(load_cifar10(False, test_augs, batch_size), net, ctx)
        assert 0 <= accuracy <= 1

    train_with_data_aug(flip_aug, no_aug)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "training on [cpu(0)]"
    assert lines[1].startswith("epoch 1, loss ")
    for (X, y), (ours, same) in zip(
        load_cifar10(False, no_aug, 20), d2l.load_cifar10(False, d2l.no_aug, 20)
    ):
        np.testing.assert_array_equal(X.asnumpy(), ours.asnumpy())
        np.testing.assert_array_equal(y.asnumpy(), same.asnumpy())


# --- 9.2 fine-tuning ------------------------------------------------------------------------------


def test_section_9_2_trains_both_networks(d2l, capsys):
    data_dir = "../data"
    train_imgs = gdata.vision.ImageFolderDataset(os.path.join(data_dir, "hotdog/train"))
    test_imgs = gdata.vision.ImageFolderDataset(os.path.join(data_dir, "hotdog/test"))
    assert train_imgs.synsets == ["hotdog", "not-hotdog"]

    hotdogs = [train_imgs[i][0] for i in range(8)]
    not_hotdogs = [train_imgs[-i - 1][0] for i in range(8)]
    assert d2l.show_images(hotdogs + not_hotdogs, 2, 8, scale=1.4).shape == (2, 8)

    normalize = gdata.vision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    train_augs = gdata.vision.transforms.Compose(
        [
            gdata.vision.transforms.RandomResizedCrop(32),
            gdata.vision.transforms.RandomFlipLeftRight(),
            gdata.vision.transforms.ToTensor(),
            normalize,
        ]
    )
    test_augs = gdata.vision.transforms.Compose(
        [
            gdata.vision.transforms.Resize(36),
            gdata.vision.transforms.CenterCrop(32),
            gdata.vision.transforms.ToTensor(),
            normalize,
        ]
    )

    pretrained_net = model_zoo.vision.resnet18_v2()
    pretrained_net.initialize()
    pretrained_net(nd.zeros((1, 3, 32, 32)))
    finetune_net = model_zoo.vision.resnet18_v2(classes=2)
    finetune_net.features = pretrained_net.features
    finetune_net.output.initialize(init.Xavier())
    finetune_net.output.collect_params().setattr("lr_mult", 10)

    def train_fine_tuning(net, learning_rate, batch_size=8, num_epochs=1):
        train_iter = gdata.DataLoader(
            train_imgs.transform_first(train_augs), batch_size, shuffle=True
        )
        test_iter = gdata.DataLoader(test_imgs.transform_first(test_augs), batch_size)
        ctx = d2l.try_all_gpus()
        net.collect_params().reset_ctx(ctx)
        net.hybridize()
        loss = gloss.SoftmaxCrossEntropyLoss()
        trainer = gluon.Trainer(
            net.collect_params(), "sgd", {"learning_rate": learning_rate, "wd": 0.001}
        )
        d2l.train(train_iter, test_iter, net, loss, trainer, ctx, num_epochs)

    train_fine_tuning(finetune_net, 0.01)
    scratch_net = model_zoo.vision.resnet18_v2(classes=2)
    scratch_net.initialize(init=init.Xavier())
    train_fine_tuning(scratch_net, 0.1)
    assert capsys.readouterr().out.count("epoch 1, loss ") == 2

    finetune_net.features.collect_params().setattr("grad_req", "null")
    weight = pretrained_net.output.weight
    hotdog_w = nd.split(weight.data(), 1000, axis=0)[713]
    assert hotdog_w.shape == (1, 512)


# --- 9.3 bounding boxes, 9.4 anchors, 9.5 several scales ------------------------------------------


def test_section_9_3_draws_bounding_boxes(d2l):
    d2l.set_figsize()
    img = image.imread("../img/catdog.jpg").asnumpy()
    d2l.plt.imshow(img)
    dog_bbox, cat_bbox = [60, 45, 378, 516], [400, 112, 655, 493]
    fig = d2l.plt.imshow(img)
    fig.axes.add_patch(d2l.bbox_to_rect(dog_bbox, "blue"))
    fig.axes.add_patch(d2l.bbox_to_rect(cat_bbox, "red"))

    dog, cat = fig.axes.patches
    assert (dog.get_xy(), dog.get_width(), dog.get_height()) == ((60, 45), 318, 471)
    assert (cat.get_xy(), cat.get_width(), cat.get_height()) == ((400, 112), 255, 381)


def test_section_9_4_prints_the_books_numbers(d2l):
    """Each expected number is one that the book prints."""
    img = image.imread("../img/catdog.jpg").asnumpy()
    h, w = img.shape[0:2]
    X = nd.random.uniform(shape=(1, 3, h, w))
    Y = contrib.nd.MultiBoxPrior(X, sizes=[0.75, 0.5, 0.25], ratios=[1, 2, 0.5])
    assert Y.shape == (1, 2042040, 4)
    boxes = Y.reshape((h, w, 5, 4))
    first = boxes[250, 250, 0, :]
    np.testing.assert_allclose(first.asnumpy(), [0.06, 0.07, 0.63, 0.82], atol=0.006)

    d2l.set_figsize()
    bbox_scale = nd.array((w, h, w, h))
    fig = d2l.plt.imshow(img)
    labels = ["s=0.75, r=1", "s=0.5, r=1", "s=0.25, r=1", "s=0.75, r=2", "s=0.75, r=0.5"]
    d2l.show_bboxes(fig.axes, boxes[250, 250, :, :] * bbox_scale, labels)
    assert [text.get_text() for text in fig.axes.texts] == labels

    ground_truth = nd.array([[0, 0.1, 0.08, 0.52, 0.92], [1, 0.55, 0.2, 0.9, 0.88]])
    anchors = nd.array(
        [
            [0, 0.1, 0.2, 0.3],
            [0.15, 0.2, 0.4, 0.4],
            [0.63, 0.05, 0.88, 0.98],
            [0.66, 0.45, 0.8, 0.8],
            [0.57, 0.3, 0.92, 0.9],
        ]
    )
    fig = d2l.plt.imshow(img)
    d2l.show_bboxes(fig.axes, ground_truth[:, 1:] * bbox_scale, ["dog", "cat"], "k")
    d2l.show_bboxes(fig.axes, anchors * bbox_scale, ["0", "1", "2", "3", "4"])
    labels = contrib.nd.MultiBoxTarget(
        anchors.expand_dims(axis=0), ground_truth.expand_dims(axis=0), nd.zeros((1, 3, 5))
    )
    np.testing.assert_array_equal(labels[2].asnumpy(), [[0, 1, 2, 0, 2]])
    np.testing.assert_array_equal(labels[1].asnumpy(), np.repeat([[0, 1, 1, 0, 1]], 4, axis=1))
    expected = np.zeros((5, 4))
    expected[[1, 2, 4]] = [
        *([1.40, 10.0, 2.59, 7.18], [-1.20, 0.269, 1.68, -1.57]),
        [-0.571, -1.00, -8.94e-07, 0.626],
    ]
    np.testing.assert_allclose(labels[0].asnumpy(), expected.reshape(1, 20), atol=0.006)

    anchors = nd.array(
        [
            [0.1, 0.08, 0.52, 0.92],
            [0.08, 0.2, 0.56, 0.95],
            [0.15, 0.3, 0.62, 0.91],
            [0.55, 0.2, 0.9, 0.88],
        ]
    )
    offset_preds = nd.array([0] * anchors.size)
    cls_probs = nd.array([[0] * 4, [0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.9]])
    fig = d2l.plt.imshow(img)
    d2l.show_bboxes(fig.axes, anchors * bbox_scale, ["dog=0.9", "dog=0.8", "dog=0.7", "cat=0.9"])
    output = contrib.ndarray.MultiBoxDetection(
        cls_probs.expand_dims(axis=0),
        offset_preds.expand_dims(axis=0),
        anchors.expand_dims(axis=0),
        nms_threshold=0.5,
    )
    expected = [
        [0, 0.9, 0.1, 0.08, 0.52, 0.92],
        [1, 0.9, 0.55, 0.2, 0.9, 0.88],
        [-1, 0.8, 0.08, 0.2, 0.56, 0.95],
        [-1, 0.7, 0.15, 0.3, 0.62, 0.91],
    ]
    np.testing.assert_allclose(output.asnumpy(), [expected], atol=1e-6)

    fig = d2l.plt.figure().add_subplot().imshow(img)
    for i in output[0].asnumpy():
        if i[0] == -1:
            continue
        label = ("dog=", "cat=")[int(i[0])] + str(i[1])
        d2l.show_bboxes(fig.axes, [nd.array(i[2:]) * bbox_scale], label)
    assert [text.get_text() for text in fig.axes.texts] == ["dog=0.9", "cat=0.9"]


def test_section_9_5_draws_the_anchors_of_each_scale(d2l):
    img = image.imread("../img/catdog.jpg")
    h, w = img.shape[0:2]
    d2l.set_figsize()

    def display_anchors(fmap_w, fmap_h, s):
        fmap = nd.zeros((1, 10, fmap_w, fmap_h))
        anchors = contrib.nd.MultiBoxPrior(fmap, sizes=s, ratios=[1, 2, 0.5])
        bbox_scale = nd.array((w, h, w, h))
        d2l.show_bboxes(d2l.plt.imshow(img.asnumpy()).axes, anchors[0] * bbox_scale)

    counts = []
    for side, size in ((4, 0.15), (2, 0.4), (1, 0.8)):
        display_anchors(fmap_w=side, fmap_h=side, s=[size])
        counts.append(len(d2l.plt.gca().patches))
    assert counts == [48, 48 + 12, 48 + 12 + 3]


# --- 9.6 the Pikachu data, 9.7 SSD ----------------------------------------------------------------


def load_with_mxnets_iterator(batch_size, edge_size=256):
    data_dir = "../data/pikachu"
    train_iter = image.ImageDetIter(
        path_imgrec=os.path.join(data_dir, "train.rec"),
        path_imgidx=os.path.join(data_dir, "train.idx"),
        batch_size=batch_size,
        data_shape=(3, edge_size, edge_size),
        shuffle=True,
        rand_crop=1,
        min_object_covered=0.95,
        max_attempts=200,
    )
    val_iter = image.ImageDetIter(
        path_imgrec=os.path.join(data_dir, "val.rec"),
        batch_size=batch_size,
        data_shape=(3, edge_size, edge_size),
        shuffle=False,
    )
    return train_iter, val_iter


@pytest.mark.parametrize("is_ours", [False, True], ids=["mxnet", "cvops"])
def test_section_9_6_reads_and_draws_a_batch(d2l, is_ours):
    """The iterators read both files: the training data with an index, the others without one."""
    batch_size, edge_size = 10, 64
    load_data_pikachu = d2l.load_data_pikachu if is_ours else load_with_mxnets_iterator
    train_iter, val_iter = load_data_pikachu(batch_size, edge_size)
    batch = train_iter.next()
    most = train_iter.provide_label[0][1][1]
    assert batch.data[0].shape == (10, 3, 64, 64)
    assert batch.label[0].shape == (10, most, 5)

    imgs = (batch.data[0][0:10].transpose((0, 2, 3, 1))) / 255
    axes = d2l.show_images(imgs, 2, 5).flatten()
    for ax, label in zip(axes, batch.label[0][0:10]):
        d2l.show_bboxes(ax, [label[0][1:5] * edge_size], colors=["w"])
    assert [len(ax.patches) for ax in axes] == [1] * 10

    (batch,) = val_iter
    assert batch.pad == 5
    scenes = data.read_record("../data/pikachu/val.rec")
    for pixels, label, (scene, objects) in zip(batch.data[0], batch.label[0], scenes):
        drawn = pixels.transpose((1, 2, 0)).asnumpy()
        np.testing.assert_allclose(drawn, np.asarray(scene), atol=3)  # MXNet's JPEG decoder
        np.testing.assert_array_equal(label.asnumpy()[: len(objects)], objects)


def cls_predictor(num_anchors, num_classes):
    return nn.Conv2D(num_anchors * (num_classes + 1), kernel_size=3, padding=1)


def bbox_predictor(num_anchors):
    return nn.Conv2D(num_anchors * 4, kernel_size=3, padding=1)


def forward(x, block):
    block.initialize()
    return block(x)


def flatten_pred(pred):
    return pred.transpose((0, 2, 3, 1)).flatten()


def concat_preds(preds):
    return nd.concat(*[flatten_pred(p) for p in preds], dim=1)


def down_sample_blk(num_channels):
    blk = nn.Sequential()
    for _ in range(2):
        blk.add(
            nn.Conv2D(num_channels, kernel_size=3, padding=1),
            nn.BatchNorm(in_channels=num_channels),
            nn.Activation("relu"),
        )
    blk.add(nn.MaxPool2D(2))
    return blk


def base_net():
    blk = nn.Sequential()
    for num_filters in [16, 32, 64]:
        blk.add(down_sample_blk(num_filters))
    return blk


def get_blk(i):
    if i == 0:
        blk = base_net()
    elif i == 4:
        blk = nn.GlobalMaxPool2D()
    else:
        blk = down_sample_blk(128)
    return blk


def blk_forward(X, blk, size, ratio, cls_predictor, bbox_predictor):
    Y = blk(X)
    anchors = contrib.ndarray.MultiBoxPrior(Y, sizes=size, ratios=ratio)
    cls_preds = cls_predictor(Y)
    bbox_preds = bbox_predictor(Y)
    return (Y, anchors, cls_preds, bbox_preds)


sizes = [[0.2, 0.272], [0.37, 0.447], [0.54, 0.619], [0.71, 0.79], [0.88, 0.961]]
ratios = [[1, 2, 0.5]] * 5
num_anchors = len(sizes[0]) + len(ratios[0]) - 1


class TinySSD(nn.Block):
    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        for i in range(5):
            setattr(self, f"blk_{i}", get_blk(i))
            setattr(self, f"cls_{i}", cls_predictor(num_anchors, num_classes))
            setattr(self, f"bbox_{i}", bbox_predictor(num_anchors))

    def forward(self, X):
        anchors, cls_preds, bbox_preds = [None] * 5, [None] * 5, [None] * 5
        for i in range(5):
            X, anchors[i], cls_preds[i], bbox_preds[i] = blk_forward(
                X,
                getattr(self, f"blk_{i}"),
                sizes[i],
                ratios[i],
                getattr(self, f"cls_{i}"),
                getattr(self, f"bbox_{i}"),
            )
        return (
            nd.concat(*anchors, dim=1),
            concat_preds(cls_preds).reshape((0, -1, self.num_classes + 1)),
            concat_preds(bbox_preds),
        )


def test_section_9_7_has_the_books_shapes():
    Y1 = forward(nd.zeros((2, 8, 20, 20)), cls_predictor(5, 10))
    Y2 = forward(nd.zeros((2, 16, 10, 10)), cls_predictor(3, 10))
    assert (Y1.shape, Y2.shape) == ((2, 55, 20, 20), (2, 33, 10, 10))
    assert concat_preds([Y1, Y2]).shape == (2, 25300)
    assert forward(nd.zeros((2, 3, 20, 20)), down_sample_blk(10)).shape == (2, 10, 10, 10)
    assert forward(nd.zeros((2, 3, 256, 256)), base_net()).shape == (2, 64, 32, 32)

    net = TinySSD(num_classes=1)
    net.initialize()
    anchors, cls_preds, bbox_preds = net(nd.zeros((2, 3, 256, 256)))
    assert anchors.shape == (1, 5444, 4)
    assert cls_preds.shape == (2, 5444, 2)
    assert bbox_preds.shape == (2, 21776)


def test_section_9_7_trains_and_detects(d2l):
    batch_size = 5
    train_iter, _ = d2l.load_data_pikachu(batch_size, 64)
    ctx, net = d2l.try_gpu(), TinySSD(num_classes=2)
    net.initialize(init=init.Xavier(), ctx=ctx)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.2, "wd": 5e-4})
    cls_loss = gloss.SoftmaxCrossEntropyLoss()
    bbox_loss = gloss.L1Loss()

    def calc_loss(cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks):
        cls = cls_loss(cls_preds, cls_labels)
        bbox = bbox_loss(bbox_preds * bbox_masks, bbox_labels * bbox_masks)
        return cls + bbox

    def cls_eval(cls_preds, cls_labels):
        return (cls_preds.argmax(axis=-1) == cls_labels).sum().asscalar()

    def bbox_eval(bbox_preds, bbox_labels, bbox_masks):
        return ((bbox_labels - bbox_preds) * bbox_masks).abs().sum().asscalar()

    class_errors = []
    for _epoch in range(3):
        acc_sum, mae_sum, n, m = 0.0, 0.0, 0, 0
        train_iter.reset()
        start = time.time()
        for batch in train_iter:
            X = batch.data[0].as_in_context(ctx)
            Y = batch.label[0].as_in_context(ctx)
            with autograd.record():
                anchors, cls_preds, bbox_preds = net(X)
                bbox_labels, bbox_masks, cls_labels = contrib.nd.MultiBoxTarget(
                    anchors, Y, cls_preds.transpose((0, 2, 1))
                )
                loss = calc_loss(cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks)
            loss.backward()
            trainer.step(batch_size)
            acc_sum += cls_eval(cls_preds, cls_labels)
            n += cls_labels.size
            mae_sum += bbox_eval(bbox_preds, bbox_labels, bbox_masks)
            m += bbox_labels.size
        assert time.time() >= start
        class_errors.append(1 - acc_sum / n)
    assert np.isfinite(mae_sum / m)
    assert class_errors[-1] < class_errors[0]

    img = image.imread("../img/pikachu.jpg")
    feature = image.imresize(img, 64, 64).astype("float32")
    X = feature.transpose((2, 0, 1)).expand_dims(axis=0)

    def predict(X):
        anchors, cls_preds, bbox_preds = net(X.as_in_context(ctx))
        cls_probs = cls_preds.softmax().transpose((0, 2, 1))
        output = contrib.nd.MultiBoxDetection(cls_probs, bbox_preds, anchors)
        idx = [i for i, row in enumerate(output[0]) if row[0].asscalar() != -1]
        return output[0, idx]

    output = predict(X)
    assert output.shape[1] == 6
    scores = output[:, 1].asnumpy()
    assert (scores[:-1] >= scores[1:]).all()

    d2l.set_figsize((5, 5))

    def display(img, output, threshold):
        fig = d2l.plt.imshow(img.asnumpy())
        for row in output:
            score = row[1].asscalar()
            if score < threshold:
                continue
            h, w = img.shape[0:2]
            bbox = [row[2:6] * nd.array((w, h, w, h), ctx=row.context)]
            d2l.show_bboxes(fig.axes, bbox, f"{score:.2f}", "w")
        return fig

    threshold = float(scores[len(scores) // 2])
    fig = display(img, output, threshold=threshold)
    assert len(fig.axes.texts) == (scores >= threshold).sum()


# --- 9.8 R-CNN ------------------------------------------------------------------------------------


def roi_pooling_of_section_9_8(nd):
    X = mx.nd.arange(16).reshape((1, 1, 4, 4))
    rois = mx.nd.array([[0, 0, 0, 20, 20], [0, 0, 10, 30, 30]])
    pooled = nd.ROIPooling(X, rois, pooled_size=(2, 2), spatial_scale=0.1)
    expected = [[[[5, 6], [9, 10]]], [[[9, 11], [13, 15]]]]
    np.testing.assert_array_equal(pooled.asnumpy(), expected)


def test_section_9_8_pools_with_contrib():
    roi_pooling_of_section_9_8(contrib.nd)


def test_section_9_8_pools_with_mxnets_name(operators):
    with operators.installed():
        roi_pooling_of_section_9_8(nd)


# --- 9.9 semantic segmentation, 9.10 FCN ----------------------------------------------------------


def book_table():
    colormap2label = nd.zeros(256**3)
    for i, colormap in enumerate(voc.VOC_COLORMAP):
        colormap2label[(colormap[0] * 256 + colormap[1]) * 256 + colormap[2]] = i
    return colormap2label


def book_label_indices(colormap, colormap2label):
    colormap = colormap.astype("int32")
    idx = (colormap[:, :, 0] * 256 + colormap[:, :, 1]) * 256 + colormap[:, :, 2]
    return colormap2label[idx]


def test_section_9_9_reads_labels_and_crops(d2l):
    voc_dir = d2l.download_voc_pascal()
    train_features, train_labels = voc.read_voc_images()
    n = 5
    imgs = train_features[0:n] + train_labels[0:n]
    d2l.show_images(imgs, 2, n)
    files = "JPEGImages/2012_000000.jpg", "SegmentationClass/2012_000000.png"
    for name, img in zip(files, (train_features[0], train_labels[0])):
        theirs = image.imread(f"{voc_dir}/{name}")
        assert (img.shape, img.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(img.asnumpy(), theirs.asnumpy(), atol=3)  # JPEG decoders differ

    colormap2label = book_table()
    y = voc.voc_label_indices(train_labels[0], colormap2label)
    assert y[105:115, 130:140].shape == (10, 10)
    assert voc.VOC_CLASSES[1] == "aeroplane"
    expected = book_label_indices(train_labels[0], colormap2label)
    np.testing.assert_array_equal(y.asnumpy(), expected.asnumpy())
    np.testing.assert_array_equal(voc.voc_label_indices(train_labels[0]).asnumpy(), y.asnumpy())

    imgs = []
    for _ in range(n):
        imgs += voc.voc_rand_crop(train_features[0], train_labels[0], 200, 300)
    d2l.show_images(imgs[::2] + imgs[1::2], 2, n)
    assert {img.shape for img in imgs} == {(200, 300, 3)}

    crop_size = (320, 480)
    voc_train = voc.VOCSegDataset(True, crop_size, voc_dir, colormap2label)
    voc_test = voc.VOCSegDataset(False, crop_size, voc_dir, colormap2label)
    batch_size = 3
    train_iter = gdata.DataLoader(voc_train, batch_size, shuffle=True, last_batch="discard")
    test_iter = gdata.DataLoader(voc_test, batch_size, last_batch="discard")
    for X, Y in train_iter:
        assert X.shape == (3, 3, 320, 480)
        assert Y.shape == (3, 320, 480)
        break
    assert len(test_iter) == 1


def bilinear_kernel(in_channels, out_channels, kernel_size):
    factor = (kernel_size + 1) // 2
    center = factor - 1 if kernel_size % 2 == 1 else factor - 0.5
    og = np.ogrid[:kernel_size, :kernel_size]
    filt = (1 - abs(og[0] - center) / factor) * (1 - abs(og[1] - center) / factor)
    weight = np.zeros((in_channels, out_channels, kernel_size, kernel_size), dtype="float32")
    weight[range(in_channels), range(out_channels), :, :] = filt
    return nd.array(weight)


def test_section_9_10_computes_convolutions_as_products():
    X = nd.arange(1, 17).reshape((1, 1, 4, 4))
    K = nd.arange(1, 10).reshape((1, 1, 3, 3))
    conv = nn.Conv2D(channels=1, kernel_size=3)
    conv.initialize(init.Constant(K))
    W, k = nd.zeros((4, 16)), nd.zeros(11)
    k[:3], k[4:7], k[8:] = K[0, 0, 0, :], K[0, 0, 1, :], K[0, 0, 2, :]
    W[0, 0:11], W[1, 1:12], W[2, 4:15], W[3, 5:16] = k, k, k, k
    product = nd.dot(W, X.reshape(16)).reshape((1, 1, 2, 2))
    for result in (conv(X), product):
        np.testing.assert_array_equal(result.asnumpy(), [[[[348, 393], [528, 573]]]])

    conv = nn.Conv2D(10, kernel_size=4, padding=1, strides=2)
    conv.initialize()
    Y = conv(nd.random.uniform(shape=(1, 3, 64, 64)))
    assert Y.shape == (1, 10, 32, 32)
    conv_trans = nn.Conv2DTranspose(3, kernel_size=4, padding=1, strides=2)
    conv_trans.initialize()
    assert conv_trans(Y).shape == (1, 3, 64, 64)


def test_section_9_10_trains_and_predicts(d2l):
    pretrained_net = model_zoo.vision.resnet18_v2()
    pretrained_net.initialize()
    net = nn.HybridSequential()
    for layer in pretrained_net.features[:-2]:
        net.add(layer)
    X = nd.random.uniform(shape=(1, 3, 320, 480))
    assert net(X).shape == (1, 512, 10, 15)
    num_classes = 21
    net.add(
        nn.Conv2D(num_classes, kernel_size=1),
        nn.Conv2DTranspose(num_classes, kernel_size=64, padding=16, strides=32),
    )

    conv_trans = nn.Conv2DTranspose(3, kernel_size=4, padding=1, strides=2)
    conv_trans.initialize(init.Constant(bilinear_kernel(3, 3, 4)))
    img = image.imread("../img/catdog.jpg")
    X = img.astype("float32").transpose((2, 0, 1)).expand_dims(axis=0) / 255
    Y = conv_trans(X)
    out_img = Y[0].transpose((1, 2, 0))
    assert out_img.shape == (1122, 1456, 3)

    net[-1].initialize(init.Constant(bilinear_kernel(num_classes, num_classes, 64)))
    net[-2].initialize(init=init.Xavier())
    crop_size, batch_size, colormap2label = (32, 64), 4, nd.zeros(256**3)
    for i, cm in enumerate(d2l.VOC_COLORMAP):
        colormap2label[(cm[0] * 256 + cm[1]) * 256 + cm[2]] = i
    voc_dir = d2l.download_voc_pascal(data_dir="../data")
    train_iter = gdata.DataLoader(
        d2l.VOCSegDataset(True, crop_size, voc_dir, colormap2label),
        batch_size,
        shuffle=True,
        last_batch="discard",
    )
    test_iter = gdata.DataLoader(
        d2l.VOCSegDataset(False, crop_size, voc_dir, colormap2label), 2, last_batch="discard"
    )

    ctx = d2l.try_all_gpus()
    loss = gloss.SoftmaxCrossEntropyLoss(axis=1)
    net.collect_params().reset_ctx(ctx)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "wd": 1e-3})
    for X, Y in train_iter:
        with autograd.record():
            mean = loss(net(X), Y.astype("float32"))
        mean.backward()
        trainer.step(batch_size)
        assert np.isfinite(mean.asnumpy()).all()

    def predict(img):
        X = test_iter._dataset.normalize_image(img)
        X = X.transpose((2, 0, 1)).expand_dims(axis=0)
        pred = nd.argmax(net(X.as_in_context(ctx[0])), axis=1)
        return pred.reshape((pred.shape[1], pred.shape[2]))

    def label2image(pred):
        colormap = nd.array(d2l.VOC_COLORMAP, ctx=ctx[0], dtype="uint8")
        X = pred.astype("int32")
        return colormap[X, :]

    test_images, test_labels = d2l.read_voc_images(is_train=False)
    n, imgs = 4, []
    for i in range(n):
        crop_rect = (0, 0, 64, 32)
        X = image.fixed_crop(test_images[i], *crop_rect)
        pred = label2image(predict(X))
        assert pred.shape == (32, 64, 3)
        np.testing.assert_array_equal(pred.asnumpy(), voc.label2image(predict(X)))
        imgs += [X, pred, image.fixed_crop(test_labels[i], *crop_rect)]
    d2l.show_images(imgs[::3] + imgs[1::3] + imgs[2::3], 3, n)


# --- 9.11 style transfer --------------------------------------------------------------------------


@pytest.mark.parametrize("is_ours", [False, True], ids=["book", "cvops"])
def test_section_9_11_transfers_a_style(d2l, is_ours):
    """Losses and image are the book's or those of cvops."""
    content_img = image.imread("../img/cat1.jpg")
    style_img = image.imread("../img/pikachu.jpg")
    rgb_mean = nd.array([0.485, 0.456, 0.406])
    rgb_std = nd.array([0.229, 0.224, 0.225])

    def preprocess(img, image_shape):
        img = image.imresize(img, *image_shape)
        img = (img.astype("float32") / 255 - rgb_mean) / rgb_std
        return img.transpose((2, 0, 1)).expand_dims(axis=0)

    def postprocess(img):
        img = img[0].as_in_context(rgb_std.context)
        return (img.transpose((1, 2, 0)) * rgb_std + rgb_mean).clip(0, 1)

    pretrained_net = model_zoo.vision.vgg19()
    pretrained_net.initialize(init.Xavier())
    style_layers, content_layers = [0, 5, 10, 19, 28], [25]
    net = nn.Sequential()
    for i in range(max(content_layers + style_layers) + 1):
        net.add(pretrained_net.features[i])

    def extract_features(X, content_layers, style_layers):
        contents = []
        styles = []
        for i in range(len(net)):
            X = net[i](X)
            if i in style_layers:
                styles.append(X)
            if i in content_layers:
                contents.append(X)
        return contents, styles

    def content_loss(Y_hat, Y):
        return (Y_hat - Y).square().mean()

    def gram(X):
        num_channels, n = X.shape[1], X.size // X.shape[1]
        X = X.reshape((num_channels, n))
        return nd.dot(X, X.T) / (num_channels * n)

    def style_loss(Y_hat, gram_Y):
        return (gram(Y_hat) - gram_Y).square().mean()

    def tv_loss(Y_hat):
        return 0.5 * (
            (Y_hat[:, :, 1:, :] - Y_hat[:, :, :-1, :]).abs().mean()
            + (Y_hat[:, :, :, 1:] - Y_hat[:, :, :, :-1]).abs().mean()
        )

    class GeneratedImage(nn.Block):
        def __init__(self, img_shape, **kwargs):
            super().__init__(**kwargs)
            self.weight = self.params.get("weight", shape=img_shape)

        def forward(self):
            return self.weight.data()

    if is_ours:
        content_loss, gram, style_loss, tv_loss = (
            getattr(d2l, name) for name in ("content_loss", "gram", "style_loss", "tv_loss")
        )
        GeneratedImage = d2l.GeneratedImage
    content_weight, style_weight, tv_weight = 1, 1e3, 10

    def compute_loss(X, contents_Y_hat, styles_Y_hat, contents_Y, styles_Y_gram):
        contents_l = [
            content_loss(Y_hat, Y) * content_weight for Y_hat, Y in zip(contents_Y_hat, contents_Y)
        ]
        styles_l = [
            style_loss(Y_hat, Y) * style_weight for Y_hat, Y in zip(styles_Y_hat, styles_Y_gram)
        ]
        tv_l = tv_loss(X) * tv_weight
        l = nd.add_n(*styles_l) + nd.add_n(*contents_l) + tv_l  # noqa: E741
        return contents_l, styles_l, tv_l, l

    def get_inits(X, ctx, lr, styles_Y):
        gen_img = GeneratedImage(X.shape)
        gen_img.initialize(init.Constant(X), ctx=ctx, force_reinit=True)
        trainer = gluon.Trainer(gen_img.collect_params(), "adam", {"learning_rate": lr})
        styles_Y_gram = [gram(Y) for Y in styles_Y]
        return gen_img(), styles_Y_gram, trainer

    image_shape, ctx = (45, 30), d2l.try_gpu()
    net.collect_params().reset_ctx(ctx)
    content_X = preprocess(content_img, image_shape).copyto(ctx)
    contents_Y, _ = extract_features(content_X, content_layers, style_layers)
    style_X = preprocess(style_img, image_shape).copyto(ctx)
    _, styles_Y = extract_features(style_X, content_layers, style_layers)
    X, styles_Y_gram, trainer = get_inits(content_X, ctx, 0.01, styles_Y)
    sums = []
    for _ in range(4):
        with autograd.record():
            contents_Y_hat, styles_Y_hat = extract_features(X, content_layers, style_layers)
            _, styles_l, _, l = compute_loss(  # noqa: E741
                X, contents_Y_hat, styles_Y_hat, contents_Y, styles_Y_gram
            )
        l.backward()
        trainer.step(1)
        nd.waitall()
        sums.append(l.asscalar())
    assert len(styles_l) == 5
    assert sums[-1] < sums[0]
    assert postprocess(X).shape == (30, 45, 3)


# --- the second edition, with arrays of mx.np -----------------------------------------------------


@pytest.fixture
def np_arrays():
    """MXNet after ``npx.set_np()``."""
    with mx.util.np_shape(True), mx.util.np_array(True):
        yield


@pytest.mark.parametrize("kind", [mx.nd.NDArray, mx.np.ndarray], ids=["nd", "np"])
def test_voc_functions_return_the_kind_of_their_arrays(d2l, np_arrays, kind):
    features, labels = d2l.read_voc_images("../data/VOCdevkit/VOC2012", True)
    assert type(features[0]) is type(labels[0]) is mx.np.ndarray
    image, label, table = features[0], labels[0], book_table().as_np_ndarray()
    if kind is mx.nd.NDArray:
        image, label, table = (x.as_nd_ndarray() for x in (image, label, table))

    crop = voc.voc_rand_crop(image, label, 200, 300)
    assert {type(part) for part in crop} == {kind}
    normalized = voc.normalize_image(image)
    assert type(normalized) is kind
    expected = (image.asnumpy() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normalized.asnumpy(), expected, atol=1e-5)
    expected = book_label_indices(label.as_nd_ndarray(), table.as_nd_ndarray())
    for indices in (voc.voc_label_indices(label), voc.voc_label_indices(label, table)):
        assert type(indices) is kind
        np.testing.assert_array_equal(indices.asnumpy(), expected.asnumpy())


def test_losses_of_the_book_return_the_kind_of_their_arrays(np_arrays):
    rng = np.random.default_rng(0)
    cls_preds = rng.random((2, 6, 3), np.float32)
    cls_labels = rng.integers(0, 3, (2, 6)).astype(np.float32)
    bbox_preds, bbox_labels = rng.random((2, 2, 24), np.float32)
    bbox_masks = rng.integers(0, 2, (2, 24)).astype(np.float32)
    arrays = cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks

    results = []
    for make in (mx.np.array, mx.nd.array):
        preds, classes, *boxes = map(make, arrays)
        for x in (preds, boxes[0]):
            x.attach_grad()
        with autograd.record():
            loss = losses.calc_loss(preds, classes, *boxes)
        loss.backward()
        assert type(loss) is type(preds)
        results.append([x.asnumpy() for x in (loss, preds.grad, boxes[0].grad)])
        right = (cls_preds.argmax(axis=2) == cls_labels).sum()
        assert losses.cls_eval(preds, classes) == right
        error = (np.abs(bbox_preds - bbox_labels) * bbox_masks).sum()
        assert losses.bbox_eval(*boxes) == pytest.approx(error, rel=1e-5)
    for on_np, on_nd in zip(*results):
        assert on_np.any()
        np.testing.assert_array_equal(on_np, on_nd)


def test_batches_of_records_have_arrays_of_numpy(d2l, np_arrays):
    for batches in d2l.load_data_pikachu(5, 64):
        batch = batches.next()
        assert type(batch.data[0]) is type(batch.label[0]) is mx.np.ndarray


# --- names ----------------------------------------------------------------------------------------


def test_d2l_has_all_its_names(d2l):
    for name in d2l.__all__:
        assert getattr(d2l, name) is not None
    with pytest.raises(AttributeError, match=r"'cvops\.d2l' has no attribute 'nothing'"):
        _ = d2l.nothing


def test_set_figsize_sets_the_size_of_figures(d2l):
    d2l.set_figsize()
    assert d2l.plt.figure().get_size_inches().tolist() == [3.5, 2.5]
    d2l.set_figsize((5, 4))
    assert d2l.plt.figure().get_size_inches().tolist() == [5, 4]


def test_missing_pikachu_set_is_drawn_in_its_form(d2l, tmp_path, monkeypatch, capsys):
    """An image has one object of class 0. The second call reads the files of the first one."""
    write = data.write_record

    def write_few(file, photos, count, *options, **more):
        return write(file, photos, count // 100, *options, **more)

    monkeypatch.setattr(data, "write_record", write_few)
    train_iter, val_iter = d2l.load_data_pikachu(3, 128, tmp_path / "pikachu")
    assert "so a drawn set is written there" in capsys.readouterr().out
    for batches, count in ((train_iter, 9), (val_iter, 1)):
        labels = [batch.label[0][: 3 - batch.pad].asnumpy() for batch in batches]
        labels = np.concatenate(labels)
        assert labels.shape == (count, 1, 5)
        assert (labels[:, 0, 0] == 0).all()
    content = (tmp_path / "pikachu/train.rec").read_bytes()
    d2l.load_data_pikachu(3, 128, tmp_path / "pikachu")
    assert (tmp_path / "pikachu/train.rec").read_bytes() == content
    assert capsys.readouterr().out == ""
    (tmp_path / "pikachu/val.rec").unlink()
    with pytest.raises(FileNotFoundError, match=r"val\.rec: no such file"):
        d2l.load_data_pikachu(3, 128, tmp_path / "pikachu")
