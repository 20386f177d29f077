"""Constants of TinySSD."""

#: Anchor sizes (fractions of the image) and ratios of the five feature maps, fine to coarse.
SIZES = ((0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961))
RATIOS = ((1.0, 2.0, 0.5),) * 5

#: Channels of the feature maps.
CHANNELS = (64, 128, 128, 128, 128)
