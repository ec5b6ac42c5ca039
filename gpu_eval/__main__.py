"""`python -m gpu_eval`: the benches and the self-test on a machine that has Python and torch, and this folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done; 1 a check failed; 2 wrong use, one line that says what would be right; 130 interrupted, of
    a bench with the rows that it had by then."""
    given = _parser().parse_args(arguments)
    try:
        code: int = given.call(given)
    except ValueError as error:
        print(f"gpu_eval: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gpu_eval: interrupted, nothing was written", file=sys.stderr)
        return 130
    return code


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, without its whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("gpu_eval", description="Benches of expert load balancing and MoE placement.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    bench = commands.add_parser("bench", help="measure all baselines and given programs; writes results and a page")
    bench.add_argument("bench", choices=("eplb", "moe_placement"))
    _bench_options(bench)
    bench.set_defaults(call=_bench)
    selftest = commands.add_parser("selftest", help="try every part on this machine, in about a minute")
    selftest.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    selftest.set_defaults(call=_selftest)
    page = commands.add_parser("page", help="make the page of a results.json again, and print its tables")
    page.add_argument("results", type=Path)
    page.add_argument("--markdown", action="store_true", help="print Markdown")
    page.set_defaults(call=_page)
    return parser


def _bench_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument(
        "--candidates", type=Path, nargs="+", default=[], metavar="FILE", help="programs to measure too"
    )
    parser.add_argument("--regime", action="append", default=[], help="of loads; repeatable (default: all)")
    parser.add_argument("--shape", action="append", default=[], help="LxE-P/G/N/K; repeatable (default: all)")
    parser.add_argument("--loads", type=Path, help="recorded loads in place of generated ones (docs/load_traces.md)")
    parser.add_argument("--entries-per-window", type=int, help="of recorded loads that count in smaller pieces")
    parser.add_argument("--quick", action="store_true", help="one shape and two regimes")
    parser.add_argument("--seed", type=int, default=0, help="of generated loads")
    parser.add_argument("--out", type=Path, help="folder for results.json and page.html (default: results/...)")


def _bench(given: argparse.Namespace) -> int:
    from gpu_eval.bench_options import run_bench

    results = run_bench(
        given.bench,
        device=given.device,
        candidates=given.candidates,
        regimes=given.regime,
        shapes=given.shape,
        loads=given.loads,
        entries_per_window=given.entries_per_window,
        quick=given.quick,
        seed=given.seed,
        out=given.out,
        told=lambda line: print(line, file=sys.stderr, flush=True),
        show=print,
    )
    return 130 if "interrupted" in results.settings else 0


def _selftest(given: argparse.Namespace) -> int:
    from gpu_eval.bench_options import device_of
    from gpu_eval.selftest import run_checks

    return 0 if run_checks(device_of(given.device), print) else 1


def _page(given: argparse.Namespace) -> int:
    from gpu_eval.report import PAGE_FILE, write_page
    from gpu_eval.results import read_results
    from gpu_eval.tables import markdown_table, text_table

    results = read_results(given.results)
    write_page(results, given.results.with_name(PAGE_FILE))
    print(markdown_table(results) if given.markdown else text_table(results), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
