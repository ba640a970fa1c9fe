"""Answer the questions of CS231n's lecture on loss functions by computing.

python bench/questions.py                       # all questions
python bench/questions.py svm-q3 overfit        # some; --list shows the names

Each answer asserts its claims and shows the numbers. The data are CIFAR-10 and MNIST with
``--data-folder``, else synthetic. Source: Stanford CS231n, lecture 3, "Loss functions and
optimization".
"""

from __future__ import annotations

import argparse
from pathlib import Path

# These modules register their questions.
import loss_questions  # noqa: F401
import training_questions  # noqa: F401
from asking import QUESTIONS, Problems
from experiments import clear_errors, data_folder

__all__ = ["QUESTIONS"]


def main() -> None:
    """Answer the questions named on the command line, or all."""
    from fastloss.cli.common import console

    parser = argparse.ArgumentParser(description="Answer the lecture's questions by computing.")
    parser.add_argument("names", nargs="*", metavar="name", help="name of a question; default: all")
    parser.add_argument("--list", action="store_true", help="only list the questions")
    parser.add_argument("--data-folder", type=Path, help="holds cifar-10-batches-bin and mnist")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in QUESTIONS]:
        parser.error(f"no question is called {unknown[0]!r}; there are {', '.join(QUESTIONS)}")
    terminal = console()
    with clear_errors(parser):
        problems = Problems(data_folder(arguments.data_folder))
        for name in arguments.names or QUESTIONS:
            asked = QUESTIONS[name]
            terminal.print(f"{name}: {asked.asked}", style="bold")
            if not arguments.list:
                answer = asked.answer(problems)
                terminal.print(answer.said, answer.table.rich(), sep="\n")


if __name__ == "__main__":
    main()
