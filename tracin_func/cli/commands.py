"""The table of commands: what each runs, its groups of options, and its help."""

from collections.abc import Callable
from dataclasses import dataclass

from tracin_func.cli.exclusion_options import ExcludeOptions
from tracin_func.cli.options import (
    EVALUATE,
    GRADIENTS,
    INFLUENCE,
    REPORT,
    SELF,
    TRAIN,
    DemoOptions,
    DoctorOptions,
    InspectOptions,
    MergeOptions,
    PrintOptions,
    ViewOptions,
)
from tracin_func.cli.view_options import CompareOptions, ShowOptions


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        body: `module:function`, imported when the command runs and called with its `Options`.
        groups: the groups of its options.
        help: what it does.
        examples: below the options.
    """

    body: str
    groups: tuple[type | Callable[[], tuple[type, ...]], ...]
    help: str
    examples: tuple[str, ...] = ()


COMMANDS = {
    "self": Command(
        "tracin_func.cli.score:self_influence",
        SELF,
        """Score how hard each training pair is for the model.

        self(p) = Σ_t η_t ‖∇ℓ_p‖²: high scores mark hard pairs and possible label errors. Without options it runs on
        the embedded example: synthetic tones and a ranker trained on them, made on first use. Results are merged into
        METADATA_DIR/{material}_{frequency}_metadata.json.
        """,
        (
            "tracin-func self",
            "tracin-func self --data-root recordings --checkpoint-dir checkpoints --material box",
            "tracin-func self --loss-type standard --by class-pair",
        ),
    ),
    "influence": Command(
        "tracin_func.cli.score:influence",
        INFLUENCE,
        """Score what each training pair did to test pairs.

        influence(p, q) = Σ_t ⟨∇ℓ_p, η_t ∇ℓ_q⟩: positive where training on p lowered the loss of q. Without options it
        runs on the embedded example: synthetic tones and a ranker trained on them, made on first use. Results are
        merged into METADATA_DIR/{material}_{frequency}_influence_metadata.json.
        """,
        (
            "tracin-func influence --num-test 5",
            "tracin-func influence --test-select misranked --test-functional score-margin",
            "tracin-func influence --num-test 5 --with-self --verify 20",
        ),
    ),
    "gradients": Command(
        "tracin_func.cli.fill:gradients",
        GRADIENTS,
        """Compute the gradients of all items once and cache them in a store, for any pairs that are scored later.

        An interrupted run continues where it stopped. With --shard I/N, N runs of a job array share the work.
        """,
        ("tracin-func gradients --store gradients", "tracin-func influence --num-test 5 --store gradients"),
    ),
    "merge": Command(
        "tracin_func.cli.score:merge",
        (MergeOptions, PrintOptions),
        """Score the gradients that `--shard` runs have computed, with the options of those runs.

        Run it where the shards were run. If blocks are missing, they are listed and nothing is scored.
        """,
    ),
    "store": Command(
        "tracin_func.cli.store:store",
        (InspectOptions, ViewOptions),
        """Describe a gradient store (info), or check it for damage (verify).

        Exit code 1 if a block is damaged; with --drop, damaged blocks are removed and the next run recomputes them.
        """,
        ("tracin-func store info gradients", "tracin-func store verify gradients --drop"),
    ),
    "show": Command(
        "tracin_func.cli.show:show",
        (ShowOptions, ViewOptions),
        """Show a result file: its highest scores, their distribution, and anything odd about them.

        --by class-pair shows what to record more of, --by item which items to check. With several test pairs, scores
        are summed over them; --column PART selects one.
        """,
        (
            "tracin-func show metadata/plastic_500hz_metadata.json",
            "tracin-func show metadata/plastic_500hz_metadata.json --by class-pair",
        ),
    ),
    "compare": Command(
        "tracin_func.cli.compare:compare",
        (CompareOptions, ViewOptions),
        """Compare the order of pairs in two result files: of two losses, margins, models or runs.

        Shows the rank correlation, how many of the strongest pairs are the same, and which pairs moved most. Influence
        is compared for each test pair that both files have, and for their sum.
        """,
        (
            "tracin-func compare metadata/plastic_500hz_metadata.json audit/plastic_500hz_metadata.json",
            "tracin-func compare scores.json scores.json --column margin_10 --column margin_1",
        ),
    ),
    "exclude": Command(
        "tracin_func.cli.exclude:exclude",
        (ExcludeOptions, ViewOptions),
        """List training pairs to leave out, by their scores in result files.

        Influence: pairs below --threshold on enough test pairs; they raised the loss of these. Self-influence: pairs
        above --upper-threshold; they are hard or mislabelled. A list that would empty a class is refused. Give the file
        to --exclusions-file.
        """,
        (
            "tracin-func exclude metadata/plastic_500hz_influence_metadata.json --output-file exclusions.txt",
            "tracin-func exclude metadata/plastic_500hz_influence_metadata.json --sweep -5,-10,-15",
            "tracin-func exclude metadata/plastic_500hz_metadata.json --upper-threshold 99%",
        ),
    ),
    "report": Command(
        "tracin_func.cli.report:report",
        REPORT,
        """Write a report of scores: one HTML file to read, print and send, or Markdown.

        With result files, it reports these. Without, it scores training pairs and test pairs first, as `influence
        --with-self` with the same options, and reports everything that is known of the run. Recordings are shown with
        spectrogram and sound where their folder is known, from provenance or --data-root.
        """,
        (
            "tracin-func report",
            "tracin-func report metadata/plastic_500hz_metadata.json --output report.html",
            "tracin-func report --data-root recordings --checkpoint-dir checkpoints --num-test 5 --lang zh-TW",
            "tracin-func report metadata/plastic_500hz_metadata.json --format markdown",
        ),
    ),
    "train": Command(
        "tracin_func.cli.train:train",
        TRAIN,
        """Train a ranker on the training pairs and save checkpoints that `self` and `influence` read.

        The tones ranker, a --model on recordings, or the scorer of a --task. Split and held-out pairs stay the same
        whatever --exclusions-file leaves out. A killed training continues with --resume, to the same checkpoints.
        """,
        (
            "tracin-func train --checkpoint-dir runs/all",
            "tracin-func train --task job.py:task --checkpoint-dir runs --seeds 1,2,3",
        ),
    ),
    "evaluate": Command(
        "tracin_func.cli.evaluate:evaluate_scores",
        EVALUATE,
        """Retrain the model to find out whether scores deserve trust on your data.

        With planted label flips, without the pairs that a score ranks first, and on random halves of the pairs. Plain
        loss, random scores and dropping nothing are always compared. Retrained models are cached.
        """,
        (
            "tracin-func evaluate --budget 10 --methods tracin,tracin-last,self",
            "tracin-func evaluate --parts datamodelling,items --budget 20 --figure evaluation.svg",
        ),
    ),
    "demo": Command(
        "tracin_func.cli.demo:demo",
        (DemoOptions,),
        """Write the embedded example as files: data, checkpoints and the commands to run on them.

        Synthetic tones of 500hz, 1000hz and 3000hz, and a ranker trained on each; about a minute on first use.
        """,
        ("tracin-func demo example",),
    ),
    "doctor": Command(
        "tracin_func.cli.doctor:doctor",
        (DoctorOptions,),
        """Report versions, devices and settings, and test every engine on every device.

        The test compares scores of a small random net with a float64 loop. It takes a few seconds and writes nothing.
        Exit code 1 if an engine computes wrong scores.
        """,
    ),
}
