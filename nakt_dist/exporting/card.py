"""The model card of an export, written from records and lineage alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nakt_dist.exporting.card_header import card_header
from nakt_dist.exporting.card_origin import origin_blocks
from nakt_dist.exporting.card_results import result_blocks
from nakt_dist.exporting.few import told_of
from nakt_dist.models.onnx_metadata import INPUT_NAME, OnnxMetadata, OnnxOutput
from nakt_dist.models.preprocessing import value_range
from nakt_dist.records.fields import printable, read_if_there
from nakt_dist.records.lineage import Lineage
from nakt_dist.report.cautions import PHANTOM_NOTICE
from nakt_dist.report.document import (
    Block,
    Bullets,
    Cell,
    Document,
    Notice,
    Paragraph,
    Section,
    Table,
)
from nakt_dist.report.evaluations import Evaluation, name_network
from nakt_dist.report.markdown import to_markdown
from nakt_dist.sources.cards import DatasetCard

CARD_NAME = "README.md"

_RESEARCH = "Research on knowledge transfer, and on images like those that it learnt from."
_ALWAYS_NOT = (
    "Diagnosis, treatment, triage, or any other decision about a patient. It is no medical device, "
    "and no authority has approved it.",
    "Images of another organ, modality, device or hospital than those named below, before it has "
    "been evaluated on annotated ones from there.",
    "Finding out who was among the people whose images it learnt from.",
)
_KINDS = {
    "answer": "what the network says",
    "tap": "activation of the layer of this name, planes (N, C, h, w)",
    "class_activation": "each place's share of each logit, (N, K, h, w), its bias left out",
}


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Attributes:
        told: what travels inside an ONNX file, whether or not there is one.
        lineage: of ``told``, as it was read.
        files: what each file is, by its name.
        formats: in which the network is handed on.
        capabilities: knowledge-transfer capability by the evaluation's folder, in percent.
        records: SHA-256 of the records of ``runs``.
        parity: largest difference between PyTorch and ONNX Runtime, by output.
        intended_use: a sentence; None for research alone.
        not_for: what it must not be used for, besides what holds always.
        datasets: the cards of some of the datasets behind it.
    """

    told: OnnxMetadata
    lineage: Lineage
    parameters: int
    files: Mapping[str, str]
    formats: Sequence[str]
    runs: Sequence[Evaluation]
    capabilities: Mapping[str, float] = field(default_factory=dict)
    records: Sequence[str] = ()
    parity: Mapping[str, float] = field(default_factory=dict)
    intended_use: str | None = None
    not_for: Sequence[str] = ()
    version: str = ""
    datasets: Sequence[DatasetCard] = ()

    @property
    def phantom(self) -> bool:
        """Whether it learnt from, or was tested on, procedural images."""
        behind = (*self.lineage.trainings, *(each.learnt for each in self.lineage.teachers))
        return any(each.phantom for each in behind) or any(r.uses_phantoms for r in self.runs)


def make_card(facts: CardFacts) -> str:
    """Returns the card: Hugging Face's header, then what there is to say, as Markdown."""
    told = facts.told
    runs = [told_of(run) for run in facts.runs]
    network = name_network({"name": told.model.name, "options": told.model.options})
    subtitle = (
        f"A network for {told.task}: {network.label}, {facts.parameters:,} parameters. "
        f"Exported by nakt_dist {facts.version}."
    )
    origin = origin_blocks(facts.lineage, facts.datasets)
    sections = (
        Section("use", "Intended use", tuple(_use(facts))),
        Section("input", "Input and output", tuple(_input_and_output(told))),
        Section("origin", "What it learnt from", tuple(origin)),
        Section("results", "Results", tuple(result_blocks(runs, facts.capabilities))),
        Section("files", "Files", tuple(_files(facts))),
    )
    header = card_header(told, facts.formats, runs, facts.phantom)
    body = to_markdown(Document(told.name, subtitle, sections))
    return f"---\n{header}---\n\n{body}{_how_to(facts)}"


def _use(facts: CardFacts) -> Iterator[Block]:
    if facts.phantom:
        yield Notice(PHANTOM_NOTICE)
    yield Paragraph(facts.intended_use or _RESEARCH)
    yield Paragraph("It must not be used for:")
    answer = facts.told.answer
    own = list(facts.not_for)
    if facts.told.task == "classification" and answer.names:
        own.append(
            f"Findings other than its {len(answer.names)}: an image without any of them may show "
            "another."
        )
    if facts.phantom:
        own.append("Any claim about patients: drawn images are behind it.")
    yield Bullets((*_ALWAYS_NOT, *own))
    if facts.told.licence is None:
        yield Paragraph(
            "No licence is stated: ask its owners before you use or pass it on. Licences of the "
            "datasets and networks that it learnt from hold besides."
        )
    else:
        yield Paragraph(
            f"Licence: {facts.told.licence}. Licences of the datasets and networks that it learnt "
            "from hold besides."
        )


def _input_and_output(told: OnnxMetadata) -> Iterator[Block]:
    seen, channels = told.preprocessing, told.model.in_channels
    low, high = value_range(seen)
    colour = {1: "grey (of colour its luma, ITU-R BT.601)", 3: "RGB (grey repeated)"}
    fit = f", brought to it by {told.fit}" if told.fit else ""
    yield Bullets(
        (
            f"Images: {colour.get(channels, f'{channels} channels')}, {seen.height} × {seen.width} "
            f"pixels{fit}.",
            *_packing(told),
            f"Values: pixels in [0, 1], less the mean {seen.mean}, divided by the deviation "
            f"{seen.std}: from {low:.4g} to {high:.4g}.",
            f"In the ONNX file and the test vector the input “{INPUT_NAME}” has been brought there "
            f"already: float32 (N, {channels}, {seen.height}, {seen.width}).",
            _probabilities(told),
        )
    )
    rows = [(Cell(each.name), Cell(_KINDS[each.kind]), Cell(_names(each))) for each in told.outputs]
    yield Table("Outputs", ("Output", "What it is", "Channels in order"), tuple(rows))


def _packing(told: OnnxMetadata) -> Iterator[str]:
    """Says how the images were packed that it learnt from, where its lineage does."""
    image = read_if_there(told.lineage, "trained_on.image", Mapping) or {}
    encoding, quality = image.get("encoding"), image.get("jpeg_quality")
    if encoding is None:
        return
    stored = f"JPEG of quality {quality}" if encoding == "jpg" else str(encoding).upper()
    yield (
        "Those that it learnt from were resized with Pillow's bilinear filter and stored as "
        f"{printable(stored)} before it saw them; nakt predict does the same."
    )


def _probabilities(told: OnnxMetadata) -> str:
    if told.task == "classification":
        return "Output: a logit for each finding; its sigmoid is the probability that it is there."
    several = told.model.num_outputs > 1
    which = "softmax over the channels" if several else "sigmoid"
    call = "the most probable class is taken" if several else "from 0.5 on it is usually called so"
    return (
        f"Output: logits of each pixel, (N, K, H, W); their {which} is the probability that the "
        f"pixel is of the class or target; {call}."
    )


def _names(output: OnnxOutput) -> str:
    return ", ".join(output.names or ())


def _files(facts: CardFacts) -> Iterator[Block]:
    rows = tuple((Cell(name), Cell(what)) for name, what in facts.files.items())
    yield Table("Files", ("File", "What it is"), rows)
    if facts.parity:
        worst = max(facts.parity.values())
        yield Paragraph(
            f"ONNX Runtime and PyTorch were compared at export, for 1 and for 3 images: the "
            f"largest difference of any output was {worst:.1e} (allowed: 1e-4, of values above 1 "
            "relative to the largest)."
        )
    yield Paragraph(f"SHA-256 of the exported weights: {facts.told.weights_sha256}.")
    if facts.records:
        yield Paragraph(
            f"The results stand in evaluation records with the SHA-256 {', '.join(facts.records)}."
        )


def _how_to(facts: CardFacts) -> str:
    """Returns how the folder is used, in commands."""
    lines = [
        "",
        "## How to use it",
        "",
        "`FOLDER` is where this card lies. With nakt_dist:",
        "",
        "```bash",
        "nakt predict FOLDER images/ --output predicted",
        "nakt evaluate --weights FOLDER --dataset shards/yours --output runs/test",
        "nakt teach --teachers '[{weights: FOLDER}]' --dataset shards/yours --output shards/taught",
        "nakt train --init FOLDER --config yours.yaml",
        "```",
    ]
    if facts.parity:
        lines += [
            "",
            "Without it, here with the images of the test vector:",
            "",
            "```python",
            "import onnxruntime",
            "from safetensors.numpy import load_file",
            "",
            'vector = load_file("FOLDER/test_vector.safetensors")',
            'session = onnxruntime.InferenceSession("FOLDER/model.onnx")',
            f'found = session.run(None, {{"{INPUT_NAME}": vector["{INPUT_NAME}"]}})',
            f'print(abs(found[0] - vector["{facts.told.answer.name}"]).max())',
            "```",
        ]
    return "\n".join(lines) + "\n"
