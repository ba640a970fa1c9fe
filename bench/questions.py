"""Answer the questions of CS231n's lecture on loss functions by computing.

python bench/questions.py --data-folder path    # all questions, on CIFAR-10 and MNIST in path
python bench/questions.py svm-q3 overfit        # some, on synthetic data; --list shows the names

Each answer names its data and shows its numbers. An answer that the numbers contradict is replaced
by a sentence that says so, and the exit code is 1. Source: Stanford CS231n, lecture 3, "Loss
functions and optimization".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# These modules register their questions.
import loss_questions  # noqa: F401
import training_questions  # noqa: F401
from asking import QUESTIONS, Problems, Refuted, clear_errors
from experiments import data_folder

__all__ = ["QUESTIONS"]


def main(arguments: list[str] | None = None) -> int:
    """Answer the questions named on the command line, or all; return the exit code."""
    from fastloss.cli.common import console

    parser = argparse.ArgumentParser(description="Answer the lecture's questions by computing.")
    parser.add_argument("names", nargs="*", metavar="name", help="name of a question; default: all")
    parser.add_argument("--list", action="store_true", help="only list the questions")
    parser.add_argument("--data-folder", type=Path, help="holds cifar-10-batches-bin and mnist")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in QUESTIONS]:
        parser.error(f"no question is called {unknown[0]!r}; there are {', '.join(QUESTIONS)}")
    terminal = console()
    exit_code = 0
    with clear_errors(parser):
        problems = Problems(data_folder(given.data_folder))
        if not given.list:
            hint = "" if problems.folder else " --data-folder reads the real ones."
            terminal.print(f"{problems.told}{hint}\n")
        for name in given.names or QUESTIONS:
            terminal.print(f"{name}: {QUESTIONS[name].asked}", style="bold")
            if given.list:
                continue
            try:
                answer = QUESTIONS[name].answer(problems)
                terminal.print(answer.said, f"({answer.data})", answer.table.rich(), sep="\n")
            except Refuted as error:
                terminal.print(f"The usual answer does not hold on these data: {error}.\n")
                exit_code = 1
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
