"""The modules of Pillow."""

from cvops._imports import optional

with optional():
    from PIL import Image as Image
    from PIL import ImageChops as ImageChops
    from PIL import ImageColor as ImageColor
    from PIL import ImageDraw as ImageDraw
    from PIL import ImageEnhance as ImageEnhance
    from PIL import ImageFile as ImageFile
    from PIL import ImageFilter as ImageFilter
    from PIL import ImageFont as ImageFont
    from PIL import ImageOps as ImageOps
