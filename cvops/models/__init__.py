"""Gluon models built on the ops. Importing this imports MXNet."""

from cvops.models.fcn import FCN as FCN
from cvops.models.losses import DetectionLoss as DetectionLoss
from cvops.models.tiny_ssd import Detector as Detector
from cvops.models.tiny_ssd import TinySSD as TinySSD
from cvops.models.tiny_ssd import Training as Training
from cvops.models.tiny_ssd import predict as predict
from cvops.models.tiny_ssd import train_step as train_step
