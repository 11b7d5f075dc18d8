"""Makes the pictures in jpeg/: X.jpg, and X.png with the samples that Pillow (libjpeg-turbo's defaults) decodes from it.

    pip install numpy pillow ; apt-get install libjpeg-turbo-progs
    python3 image.py
"""
import io, os, subprocess
import numpy as np
from PIL import Image, ImageOps

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "jpeg")
os.makedirs(here, exist_ok=True)


def picture(w, h):
    r = np.random.default_rng(1)
    y, x = np.mgrid[0:h, 0:w]
    a = np.stack([128 + 100 * np.sin(x / 7 + y / 11), (x * 5 + y * 3) % 256, np.where((x // 9 + y // 6) % 2, 230, 20)], -1) + r.normal(0, 4, (h, w, 3))
    return Image.fromarray(np.clip(a, 0, 255).astype("u1"))


def put(name, data, turn=False):
    open(f"{here}/{name}.jpg", "wb").write(data)
    im = Image.open(io.BytesIO(data))
    if turn: im = ImageOps.exif_transpose(im)
    im.convert("RGB").save(f"{here}/{name}.png", optimize=True)


def save(im, **k):
    b = io.BytesIO()
    im.save(b, "JPEG", **k)
    return b.getvalue()


im = picture(45, 38)
for sub, name in ((0, "444"), (1, "422"), (2, "420")):
    put(f"baseline{name}", save(im, quality=80, subsampling=sub))
    put(f"progressive{name}", save(im, quality=70, subsampling=sub, progressive=True))
put("grey", save(im.convert("L"), quality=80))
put("cmyk", save(im.convert("CMYK"), quality=80))
put("rgb", save(im, quality=80, keep_rgb=True))
put("restarts", save(im, quality=85, restart_marker_blocks=2))
put("restarts-progressive", save(im, quality=85, restart_marker_rows=1, progressive=True))
put("tiny", save(picture(3, 2), quality=90, subsampling=2))
for i in range(1, 9):
    e = Image.Exif()
    e[0x112] = i
    put(f"exif{i}", save(picture(17, 9), quality=90, exif=e), True)
ppm = io.BytesIO()
im.save(ppm, "PPM")
for s in ("1x2", "4x1", "2x1,1x2,1x1"):
    put("cjpeg-" + s.replace(",", "-"), subprocess.run(["cjpeg", "-quality", "75", "-sample", s], input=ppm.getvalue(), stdout=subprocess.PIPE, check=True).stdout)
# Not interleaved: a scan for each component.
script = "/tmp/scans"
open(script, "w").write("0;\n1;\n2;\n")
put("scans", subprocess.run(["cjpeg", "-quality", "75", "-scans", script], input=ppm.getvalue(), stdout=subprocess.PIPE, check=True).stdout)
# YCCK is what Adobe's programs write: the transform's number in the marker of a CMYK file whose first three components are read as YCbCr.
b = bytearray(save(im.convert("CMYK"), quality=80))
at = bytes(b).index(b"Adobe")
b[at + 11] = 2
put("ycck", bytes(b))
b = bytes(b[: at - 4]) + bytes(b[at + 12 :])
put("cmyk-plain", b)
