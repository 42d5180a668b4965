"""Pack Vimeo-90k septuplets into a store that training reads patches of without decoding images.

    python scripts/prepare_vimeo90k.py vimeo_septuplet STORE [--list sep_testlist.txt] [--skip-bad]
    python scripts/prepare_vimeo90k.py --verify STORE

Prints a progress bar, then how many septuplets were packed; missing and damaged files are listed in
STORE/bad.txt. Stopped at any moment, the same command goes on. About 1.7 MB a septuplet: 110 GB for
the training list. Exit codes: 0 done, 1 bad files or input at fault, 130 interrupted.
"""

import argparse
import os
import sys
from pathlib import Path

from d3dnet.datasets.imresize import DEGRADATIONS
from d3dnet.datasets.luma_store import SHARD_CLIPS, LumaStore, pack, verify
from d3dnet.datasets.vimeo90k import TRAIN_LIST, Vimeo90k


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", type=Path, nargs="?", help="folder with sequences/ and the lists")
    parser.add_argument("store", type=Path, help="folder to pack to")
    parser.add_argument("--list", default=TRAIN_LIST, help="septuplets to pack (%(default)s)")
    parser.add_argument(
        "--degradation",
        choices=DEGRADATIONS,
        default="double",
        help="of low-resolution frames: a recipe of bicubic, or bd (%(default)s)",
    )
    parser.add_argument(
        "--make-lr", action="store_true", help="make them even where there is LR_x4/"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave bad septuplets out")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="(%(default)s)")
    parser.add_argument("--shard", type=int, default=SHARD_CLIPS, help="septuplets in a file")
    parser.add_argument("--verify", action="store_true", help="compare STORE with its checksums")
    options = parser.parse_args(arguments)
    if options.root is None and not options.verify:
        parser.error("give the folder of the septuplets, too")
    try:
        return _verify(options) if options.verify else _pack(options)
    except (OSError, ValueError) as error:
        print(f"prepare_vimeo90k: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare_vimeo90k: interrupted; the same command goes on", file=sys.stderr)
        return 130


def _pack(options: argparse.Namespace) -> int:
    septuplets = Vimeo90k(options.root, options.list, options.degradation, options.make_lr)
    settings = {
        "list": options.list,
        "degradation": options.degradation,
        "low resolution": septuplets.lr_source,
    }
    bad = pack(
        septuplets, options.store, settings, options.shard, options.skip_bad, options.workers
    )
    listing = options.store / "bad.txt"
    if not bad:
        listing.unlink(missing_ok=True)
        print(f"{options.store}: {len(LumaStore(options.store))} septuplets packed")
        return 0
    lines = [f"{path}: {reason}" for files in bad.values() for path, reason in files]
    listing.write_text("\n".join(lines) + "\n")
    found = f"{len(bad)} of {len(septuplets)} septuplets are bad ({len(lines)} files, {listing})"
    if options.skip_bad:
        print(f"{options.store}: {len(LumaStore(options.store))} septuplets packed; {found}")
        return 0
    for line in lines[:10]:
        print(line, file=sys.stderr)
    raise ValueError(f"{found}; mend them and run again, or leave them out with --skip-bad")


def _verify(options: argparse.Namespace) -> int:
    wrong = verify(options.store)
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        raise ValueError(f"{len(wrong)} files are wrong; delete them and pack again")
    print(f"{options.store}: {len(LumaStore(options.store))} septuplets, every checksum right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
