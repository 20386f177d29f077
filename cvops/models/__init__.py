"""Gluon models built on the ops. Importing this imports MXNet."""

from cvops.models.fcn import FCN as FCN
from cvops.models.losses import DetectionLoss as DetectionLoss
from cvops.models.plain_rcnn import RCNN as RCNN
from cvops.models.rcnn import FasterRCNN as FasterRCNN
from cvops.models.rcnn import FastRCNN as FastRCNN
from cvops.models.rcnn import RCNNDetector as RCNNDetector
from cvops.models.rcnn import RCNNTraining as RCNNTraining
from cvops.models.tiny_ssd import Detector as Detector
from cvops.models.tiny_ssd import TinySSD as TinySSD
from cvops.models.tiny_ssd import Training as Training
from cvops.models.tiny_ssd import predict as predict
from cvops.models.tiny_ssd import train_step as train_step
