"""Gluon models built on the ops. Importing this imports MXNet."""

from cvops.models.fcn import FCN as FCN
from cvops.models.tiny_ssd import TinySSD as TinySSD
