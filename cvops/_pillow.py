"""The modules of Pillow. Without Pillow the error has the command that installs it."""

from cvops._imports import pip_command

try:
    from PIL import Image as Image
    from PIL import ImageChops as ImageChops
    from PIL import ImageColor as ImageColor
    from PIL import ImageDraw as ImageDraw
    from PIL import ImageEnhance as ImageEnhance
    from PIL import ImageFile as ImageFile
    from PIL import ImageFilter as ImageFilter
    from PIL import ImageFont as ImageFont
    from PIL import ImageOps as ImageOps
except ModuleNotFoundError as error:
    command = pip_command("demo", "mxnet")
    raise ModuleNotFoundError(f"{error}: {command}", name=error.name) from error
