"""The code of "Dive into Deep Learning" (Gluon, first edition), sections 9.3 to 9.10, as typed.

Only the imports differ from the book: ``contrib`` and the helpers of ``d2lzh`` come from cvops. The
data are small: a drawn record file, a drawn VOC tree, and no pretrained weights.
"""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import importlib.util
import time
import types

import numpy as np
import pytest

NEEDS = ("mxnet", "skimage", "PIL", "matplotlib")
MISSING = [name for name in NEEDS if importlib.util.find_spec(name) is None]
if MISSING:
    pytest.skip(f"no {', '.join(MISSING)} here", allow_module_level=True)

from cvops import contrib, data, plot, voc
from cvops._mxnet import mxnet

mx = mxnet()
from mxnet import autograd, gluon, image, init, nd
from mxnet.gluon import data as gdata
from mxnet.gluon import loss as gloss
from mxnet.gluon import nn


@pytest.fixture(scope="module")
def d2l(tmp_path_factory):
    """The helpers of ``d2lzh`` that the chapter uses."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder = tmp_path_factory.mktemp("data")
    voc_dir = voc.make_voc(folder, 6, 4, size=(60, 80))
    record = folder / "pikachu.rec"
    data.write_record(record, data.TEST_PHOTOS, count=10, seed=0, side=64)
    yield types.SimpleNamespace(
        plt=pyplot,
        set_figsize=lambda: None,
        bbox_to_rect=plot.bbox_to_rect,
        show_bboxes=plot.show_bboxes,
        show_images=plot.show_images,
        load_data_pikachu=lambda batch_size, edge_size=256: (
            data.iterator(record, batch_size, edge_size, augment=True),
            data.iterator(record, batch_size, edge_size),
        ),
        download_voc_pascal=lambda data_dir=None: voc_dir,
        read_voc_images=voc.read_voc_images,
        VOCSegDataset=voc.VOCSegDataset,
        VOC_COLORMAP=voc.VOC_COLORMAP,
        try_all_gpus=lambda: [mx.cpu()],
        try_gpu=mx.cpu,
    )
    pyplot.close("all")


@pytest.fixture
def catdog(tmp_path):
    path = tmp_path / "catdog.jpg"
    data.photograph("chelsea.png").resize((728, 561)).save(path)
    return str(path)


# --- the names of MXNet ---------------------------------------------------------------------------


@pytest.fixture
def operators():
    """Skips where the operators for MXNet cannot be built."""
    try:
        import cvops.mxnet  # noqa: F401
    except ImportError as error:
        pytest.skip(str(error))


def test_names_of_mxnets_modules(operators):
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
    with pytest.raises(AttributeError, match=r"'cvops.contrib.symbol' has no attribute 'Proposal'"):
        _ = contrib.symbol.Proposal


def test_symbols_and_arrays_have_the_same_answer(operators):
    x = nd.zeros((1, 3, 4, 6))
    prior = contrib.sym.MultiBoxPrior(mx.sym.var("x"), sizes=(0.5, 0.2), ratios=(1, 2))
    (anchors,) = prior.eval(x=x)
    expected = contrib.nd.MultiBoxPrior(x, sizes=(0.5, 0.2), ratios=(1, 2))
    np.testing.assert_array_equal(anchors.asnumpy(), expected.asnumpy())


# --- 9.3 bounding boxes, 9.4 anchors, 9.5 scales --------------------------------------------------


def test_bounding_boxes(d2l, catdog):
    d2l.set_figsize()
    img = image.imread(catdog).asnumpy()
    dog_bbox, cat_bbox = [60, 45, 378, 516], [400, 112, 655, 493]
    fig = d2l.plt.imshow(img)
    fig.axes.add_patch(d2l.bbox_to_rect(dog_bbox, "blue"))
    fig.axes.add_patch(d2l.bbox_to_rect(cat_bbox, "red"))
    assert fig.axes.patches[-1].get_xy() == (400, 112)


def test_anchors(d2l, catdog):
    img = image.imread(catdog).asnumpy()
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
    assert fig.axes.texts[-1].get_text() == "s=0.75, r=0.5"


def test_labels_of_anchors(d2l, catdog):
    img = image.imread(catdog).asnumpy()
    h, w = img.shape[0:2]
    bbox_scale = nd.array((w, h, w, h))
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
    expected = [1.40, 10.00, 2.59, 7.18, -1.20, 0.27, 1.68, -1.57]
    np.testing.assert_allclose(labels[0][0, 4:12].asnumpy(), expected, atol=0.01)


def test_detection_of_the_book(d2l, catdog):
    img = image.imread(catdog).asnumpy()
    h, w = img.shape[0:2]
    bbox_scale = nd.array((w, h, w, h))
    anchors = nd.array(
        [
            [0.1, 0.08, 0.52, 0.92],
            [0.08, 0.2, 0.56, 0.95],
            [0.15, 0.3, 0.62, 0.91],
            [0.55, 0.2, 0.9, 0.88],
        ]
    )
    offset_preds = nd.array([0] * anchors.size)
    cls_probs = nd.array(
        [
            [0] * 4,  # background
            [0.9, 0.8, 0.7, 0.1],  # dog
            [0.1, 0.2, 0.3, 0.9],  # cat
        ]
    )
    output = contrib.ndarray.MultiBoxDetection(
        cls_probs.expand_dims(axis=0),
        offset_preds.expand_dims(axis=0),
        anchors.expand_dims(axis=0),
        nms_threshold=0.5,
    )
    np.testing.assert_array_equal(output[0, :, 0].asnumpy(), [0, 1, -1, -1])

    fig = d2l.plt.imshow(img)
    for i in output[0].asnumpy():
        if i[0] == -1:
            continue
        label = ("dog=", "cat=")[int(i[0])] + str(i[1])
        d2l.show_bboxes(fig.axes, [nd.array(i[2:]) * bbox_scale], label)
    assert [text.get_text() for text in fig.axes.texts[-2:]] == ["dog=0.9", "cat=0.9"]


def test_scales(d2l, catdog):
    img = image.imread(catdog)
    h, w = img.shape[0:2]

    def display_anchors(fmap_w, fmap_h, s):
        fmap = nd.zeros((1, 10, fmap_w, fmap_h))
        anchors = contrib.nd.MultiBoxPrior(fmap, sizes=s, ratios=[1, 2, 0.5])
        bbox_scale = nd.array((w, h, w, h))
        axes = d2l.plt.figure().add_subplot()
        axes.imshow(img.asnumpy())
        d2l.show_bboxes(axes, anchors[0] * bbox_scale)
        return len(axes.patches)

    assert display_anchors(fmap_w=4, fmap_h=4, s=[0.15]) == 48
    assert display_anchors(fmap_w=2, fmap_h=2, s=[0.4]) == 12
    assert display_anchors(fmap_w=1, fmap_h=1, s=[0.8]) == 3


# --- 9.6 the Pikachu data, 9.7 SSD ----------------------------------------------------------------


def test_pikachu(d2l):
    batch_size, edge_size = 10, 64
    train_iter, _ = d2l.load_data_pikachu(batch_size, edge_size)
    batch = train_iter.next()
    assert batch.data[0].shape == (10, 3, 64, 64)
    assert batch.label[0].shape[2] == 5

    imgs = (batch.data[0][0:10].transpose((0, 2, 3, 1))) / 255
    axes = d2l.show_images(imgs, 2, 5).flatten()
    for ax, label in zip(axes, batch.label[0][0:10]):
        d2l.show_bboxes(ax, [label[0][1:5] * edge_size], colors=["w"])
    assert all(len(ax.patches) == 1 for ax in axes)


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


def test_layers_of_ssd():
    Y1 = forward(nd.zeros((2, 8, 20, 20)), cls_predictor(5, 10))
    Y2 = forward(nd.zeros((2, 16, 10, 10)), cls_predictor(3, 10))
    assert (Y1.shape, Y2.shape) == ((2, 55, 20, 20), (2, 33, 10, 10))
    assert concat_preds([Y1, Y2]).shape == (2, 25300)
    assert forward(nd.zeros((2, 3, 20, 20)), down_sample_blk(10)).shape == (2, 10, 10, 10)
    assert forward(nd.zeros((2, 3, 256, 256)), base_net()).shape == (2, 64, 32, 32)


def test_ssd(d2l):
    net = TinySSD(num_classes=1)
    net.initialize()
    X = nd.zeros((2, 3, 256, 256))
    anchors, cls_preds, bbox_preds = net(X)
    assert anchors.shape == (1, 5444, 4)
    assert cls_preds.shape == (2, 5444, 2)
    assert bbox_preds.shape == (2, 21776)

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

    img = nd.array(data.photograph("coffee.png").resize((96, 64)), dtype="uint8")
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

    def display(img, output, threshold):
        fig = d2l.plt.imshow(img.asnumpy())
        for row in output:
            score = row[1].asscalar()
            if score < threshold:
                continue
            h, w = img.shape[0:2]
            bbox = [row[2:6] * nd.array((w, h, w, h), ctx=row.context)]
            d2l.show_bboxes(fig.axes, bbox, f"{score:.2f}", "w")

    display(img, output, threshold=0)


# --- 9.8 R-CNN ------------------------------------------------------------------------------------


def test_roi_pooling():
    X = nd.arange(16).reshape((1, 1, 4, 4))
    rois = nd.array([[0, 0, 0, 20, 20], [0, 0, 10, 30, 30]])
    pooled = contrib.nd.ROIPooling(X, rois, pooled_size=(2, 2), spatial_scale=0.1)
    expected = [[[[5, 6], [9, 10]]], [[[9, 11], [13, 15]]]]
    np.testing.assert_array_equal(pooled.asnumpy(), expected)


# --- 9.9 semantic segmentation, 9.10 FCN ----------------------------------------------------------


def test_voc(d2l):
    voc_dir = d2l.download_voc_pascal()
    train_features, train_labels = voc.read_voc_images(root=voc_dir, is_train=True)
    n = 5
    imgs = train_features[0:n] + train_labels[0:n]
    d2l.show_images(imgs, 2, n)
    assert imgs[0].asnumpy().dtype == np.uint8

    colormap2label = nd.zeros(256**3)
    for i, colormap in enumerate(voc.VOC_COLORMAP):
        colormap2label[(colormap[0] * 256 + colormap[1]) * 256 + colormap[2]] = i
    y = voc.voc_label_indices(train_labels[0], colormap2label)
    part = y[5:15, 10:20]
    assert part.shape == (10, 10)
    np.testing.assert_array_equal(y.asnumpy(), voc.voc_label_indices(train_labels[0]).asnumpy())
    # The book's own function, on the arrays of read_voc_images.
    colormap = train_labels[0].astype("int32")
    idx = (colormap[:, :, 0] * 256 + colormap[:, :, 1]) * 256 + colormap[:, :, 2]
    np.testing.assert_array_equal(y.asnumpy(), colormap2label[idx].asnumpy())

    imgs = []
    for _ in range(n):
        imgs += voc.voc_rand_crop(train_features[0], train_labels[0], 20, 30)
    d2l.show_images(imgs[::2] + imgs[1::2], 2, n)

    crop_size = (32, 48)
    voc_train = voc.VOCSegDataset(True, crop_size, voc_dir, colormap2label)
    voc_test = voc.VOCSegDataset(False, crop_size, voc_dir, colormap2label)
    batch_size = 4
    train_iter = gdata.DataLoader(voc_train, batch_size, shuffle=True, last_batch="discard")
    test_iter = gdata.DataLoader(voc_test, batch_size, last_batch="discard")
    for X, Y in train_iter:
        assert X.shape == (4, 3, 32, 48)
        assert Y.shape == (4, 32, 48)
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


def test_fcn(d2l, catdog):
    pretrained_net = gluon.model_zoo.vision.resnet18_v2()
    pretrained_net.initialize()
    net = nn.HybridSequential()
    for layer in pretrained_net.features[:-2]:
        net.add(layer)
    X = nd.random.uniform(shape=(1, 3, 32, 64))
    assert net(X).shape == (1, 512, 1, 2)
    num_classes = 21
    net.add(
        nn.Conv2D(num_classes, kernel_size=1),
        nn.Conv2DTranspose(num_classes, kernel_size=64, padding=16, strides=32),
    )

    conv_trans = nn.Conv2DTranspose(3, kernel_size=4, padding=1, strides=2)
    conv_trans.initialize(init.Constant(bilinear_kernel(3, 3, 4)))
    img = image.imread(catdog)
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
            mean = loss(net(X), Y)
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

    test_images, test_labels = d2l.read_voc_images(voc_dir, is_train=False)
    n, imgs = 3, []
    for i in range(n):
        crop_rect = (0, 0, 64, 32)
        X = image.fixed_crop(test_images[i], *crop_rect)
        pred = label2image(predict(X))
        assert pred.shape == (32, 64, 3)
        np.testing.assert_array_equal(pred.asnumpy(), voc.label2image(predict(X)))
        imgs += [X, pred, image.fixed_crop(test_labels[i], *crop_rect)]
    d2l.show_images(imgs[::3] + imgs[1::3] + imgs[2::3], 3, n)
