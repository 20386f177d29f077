"""Detect objects in many images on a cluster of Ray, and write the results as Parquet.

    python ray_detect.py photos/ --params run/best.params --output found/ --actors 8

The machines of the cluster need cvops with the extras mxnet, demo and ray, and must reach the
images and the output: a shared folder, or a store such as s3://. Only this process reads the
parameters. Without ``--address`` Ray starts on this machine alone.
"""

from __future__ import annotations

import argparse
import time

import ray

import cvops.ray

#: The files that are images; others in a folder are left out.
EXTENSIONS = ["bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", nargs="+", help="files, or folders with images")
    parser.add_argument("--params", required=True, help="parameters of a detector")
    parser.add_argument("--output", required=True, help="folder of the Parquet files")
    parser.add_argument("--threshold", type=float, default=0.5, help="minimum score")
    parser.add_argument("--actors", type=int, default=2, help="number of networks")
    parser.add_argument("--batch", type=int, default=16, help="images at a time")
    parser.add_argument("--address", help="address of the cluster, such as auto")
    options = parser.parse_args()

    ray.init(address=options.address, include_dashboard=False)
    start = time.perf_counter()
    files = ray.data.read_binary_files(
        options.images, include_paths=True, file_extensions=EXTENSIONS
    )
    found = cvops.ray.detect(
        files,
        options.params,
        options.threshold,
        batch_size=options.batch,
        actors=options.actors,
        on_error="skip",
    )
    found.write_parquet(options.output)
    seconds = time.perf_counter() - start

    results = ray.data.read_parquet(options.output, columns=["path", "error"])
    count = results.count()
    for row in results.filter(lambda row: row["error"] is not None).iter_rows():
        print(f"skipped: {row['error']}")
    print(f"{count} images in {seconds:.1f} s: {count / seconds:.1f} images/s")


if __name__ == "__main__":
    main()
