"""Groups of real animals, as `neurt crossval` tells them: CA1 against CA3, and mice whose dates give them away.

    python benchmarks/real_groups.py [--windows 2000] [--finetune default --jobs 2] [--output benchmarks/results]

1. ca1_ca3_events: nine mice, 72 sessions of event amplitudes. The scale of amplitudes separates the groups alone, so
   every trace is min-max scaled; all 126 labellings of the mice are tried.
2. park_v1: seven mice, one session each. The groups were imaged on different days, which the report must say first.

Neither tells where neurons lie, so their neighbours are hidden from the model. Reports, with figures, are saved as
`groups_SET` in the folder of `--output`.
"""

import argparse
import tempfile
import time
from pathlib import Path

from measurement import REPOSITORY
from neurt.crossval.data import StudyOptions
from neurt.crossval.study import crossval
from neurt.dataset_scripts.parquet_build import write_build
from neurt.loading import shipped_model
from real_sets import real_sets

GROUPS = ("ca1_ca3_events", "park_v1")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=GROUPS, default=GROUPS, help="sets of recordings [both]")
    parser.add_argument("--model", type=Path, help="folder of the pretrained model [the shipped weights]")
    parser.add_argument("--windows", type=int, default=2000, help="windows of a recording, at most [2000]")
    parser.add_argument("--finetune", help="recipe by which the model is fine-tuned in each fold as well [frozen]")
    parser.add_argument("--jobs", type=int, default=1, help="folds to fine-tune at a time [1]")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks" / "results", help="folder of reports")
    arguments = parser.parse_args()
    options = StudyOptions(
        label="label", windows=arguments.windows, finetune=arguments.finetune, missing_neighbours="mask"
    )
    for name in arguments.sets:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            build = Path(folder) / name
            write_build(real_sets()[name](), build, builder="benchmarks/real_groups.py", parameters={})
            output = arguments.output / f"groups_{name}{'_finetuned' if arguments.finetune else ''}"
            command = f"python benchmarks/real_groups.py --sets {name} --windows {arguments.windows}"
            command += f" --finetune {arguments.finetune}" if arguments.finetune else ""
            crossval(
                build,
                output,
                model=arguments.model or shipped_model(),
                options=options,
                jobs=arguments.jobs,
                command=command,
            )
        print((output / "report.md").read_text(encoding="utf-8"))
        print(f"{name}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
