"""A hand-made model of three layers whose circuit is known: nodes, edges, signs and weights.

The stream has sixteen places, eight in use. Token "a" writes 3 into place 0, "b" writes 2 into
place 1, "c" writes 4 into place 7. Layer 0 moves places 0 and 1 to 2 and 3; layer 1 sums them over
the tokens so far into 4 (twice) and 5 (once); layer 2 puts relu(x4 - 2 x5) into 6; the head reads
5 x6. Each SAE is the identity, so feature i is place i. For "acb." the last token has x4 = 6,
x5 = 2, x6 = 2.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx
import pytest
import torch
from conftest import RandomSuite, byte_tokenizer
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM

from workbench import figures
from workbench.analysis.attribution import Target
from workbench.analysis.causes import causes
from workbench.analysis.circuit import Circuit
from workbench.analysis.circuit_edges import trace_circuit
from workbench.analysis.faithfulness import measure
from workbench.models import Model, wrap
from workbench.sae import SAE, SAEConfig
from workbench.sites import Site
from workbench.tokens import Tokens, tokenize

D, SITES = 16, [Site(0), Site(1), Site(2)]


class Layer(nn.Module):
    """One layer: a function of the whole stream ``(batch, pos, d)``."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor, **_: object) -> Tensor:
        y = torch.zeros_like(x)
        if self.number == 0:
            y[..., 2], y[..., 3], y[..., 7] = x[..., 0], x[..., 1], x[..., 7]
        elif self.number == 1:
            y[..., 4], y[..., 5] = 2 * x[..., 2].cumsum(-1), x[..., 3].cumsum(-1)
        else:
            y[..., 6] = (x[..., 4] - 2 * x[..., 5]).relu()
        return y


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = byte_tokenizer()
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=D, intermediate_size=8, num_hidden_layers=3,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, tie_word_embeddings=False,
        pad_token_id=0, eos_token_id=1, bos_token_id=2,
        attn_implementation="eager",  # pyright: ignore[reportCallIssue]
    )  # fmt: skip
    module: Any = Gemma2ForCausalLM(config).eval()
    module.model.layers = nn.ModuleList(Layer(number) for number in range(3))
    module.model.norm = nn.Identity()
    config.final_logit_softcapping = None
    with torch.no_grad():
        embeddings = module.model.embed_tokens
        embeddings.weight.zero_()
        for text, place, size in (("a", 0, 3.0), ("b", 1, 2.0), ("c", 7, 4.0)):
            [token] = tokenizer(text, add_special_tokens=False)["input_ids"]
            embeddings.weight[token, place] = size / embeddings.scalar_embed_scale
        module.lm_head.weight.zero_()
        [x] = tokenizer("x", add_special_tokens=False)["input_ids"]
        module.lm_head.weight[x, 6] = 5
    return wrap(module, tokenizer, name="hand-made")


@pytest.fixture(scope="module")
def suite() -> RandomSuite:
    def identity(site: Site) -> SAE:
        config = SAEConfig("hand-made", site.layer, site.kind, D, None, "", D, D, D)
        eye, zero = torch.eye(D), torch.zeros(D)
        return SAE(eye, zero, eye.clone(), zero.clone(), zero + 0.01, "jumprelu", config)

    return RandomSuite({site: identity(site) for site in SITES})


@pytest.fixture(scope="module")
def tokens(model: Model) -> Tokens:
    return tokenize(model.tokenizer, "acb.")


@pytest.fixture(scope="module")
def target(model: Model, tokens: Tokens) -> Target:
    return Target.of(model, tokens, "x", against="y")


@pytest.fixture(scope="module")
def circuit(model: Model, suite: RandomSuite, tokens: Tokens, target: Target) -> Circuit:
    return trace_circuit(model, suite, tokens, target, SITES)


WEIGHTS = {
    ("token @1", "res/0 feature 2 @1"): 30.0,
    ("token @3", "res/0 feature 3 @3"): -20.0,
    ("res/0 feature 2 @1", "res/1 feature 4 @4"): 30.0,
    ("res/0 feature 3 @3", "res/1 feature 5 @4"): -20.0,
    ("res/1 feature 4 @4", "res/2 feature 6 @4"): 30.0,
    ("res/1 feature 5 @4", "res/2 feature 6 @4"): -20.0,
    ("res/2 feature 6 @4", "target"): 10.0,
}


def test_the_circuit_is_recovered_exactly(circuit: Circuit) -> None:
    assert circuit.score == pytest.approx(10.0)
    found = {(edge.source, edge.target): edge.weight for edge in circuit.edges}
    assert found == pytest.approx(WEIGHTS)
    ends = {name for pair in WEIGHTS for name in pair}
    assert {node.name for node in circuit.nodes} == ends, (
        "nothing else: errors are 0, c does not count"
    )
    kinds = [node.kind for node in circuit.nodes]
    assert kinds == ["token"] * 2 + ["feature"] * 5 + ["target"]
    six = circuit.by_name["res/2 feature 6 @4"]
    assert (six.activation, six.attribution, six.token) == (2.0, pytest.approx(10.0), ".")
    assert circuit.by_name["token @3"].token == "b"


def test_a_distractor_is_active_and_left_out(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target, circuit: Circuit
) -> None:
    from workbench.analysis.attribution import attribute

    part = attribute(model, suite, tokens, target, [Site(0)]).parts[Site(0)]
    assert part.activations.of(7)[2] == 4
    assert part.effects.of(7)[2] == 0
    assert all(node.index != 7 for node in circuit.nodes)


def test_it_is_faithful_and_complete(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target, circuit: Circuit
) -> None:
    found = circuit.faithfulness
    assert found is not None
    assert (found.model, found.empty) == (pytest.approx(10.0), 0.0)
    assert (found.faithfulness, found.completeness) == (pytest.approx(1.0), 0.0)
    spots = {(n.site, n.position, n.index) for n in circuit.features}
    # Without the path of b, x6 is 6 and not 2: three times the target.
    half = {spot for spot in spots if spot[2] not in (3, 5)}
    [more] = measure(model, suite, tokens, target, SITES, [half])  # pyright: ignore
    assert more.faithfulness == pytest.approx(3.0)
    assert more.completeness == 0.0
    [none] = measure(model, suite, tokens, target, SITES, [{(Site(0), 2, 7)}])
    assert (none.faithfulness, none.completeness) == (0.0, pytest.approx(1.0))


def test_fewer_sites_give_the_same_paths(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target
) -> None:
    short = trace_circuit(model, suite, tokens, target, [Site(1)])
    assert {(e.source, e.target): e.weight for e in short.edges} == pytest.approx(
        {
            ("token @1", "res/1 feature 4 @4"): 30.0,
            ("token @3", "res/1 feature 5 @4"): -20.0,
            ("res/1 feature 4 @4", "target"): 30.0,
            ("res/1 feature 5 @4", "target"): -20.0,
        }
    )


def test_the_largest_are_kept(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target
) -> None:
    few = trace_circuit(model, suite, tokens, target, SITES, k=3, dimmed=0)
    assert {node.index for node in few.features} == {2, 4, 3} or {
        node.index for node in few.features
    } == {2, 4, 5}
    pruned = trace_circuit(model, suite, tokens, target, SITES, floor=0.999, dimmed=0)
    assert len(pruned.edges) == len(WEIGHTS), "10 of a score of 10 is not below the floor"


def test_it_is_saved_and_opened_whole(circuit: Circuit, tmp_path: Path) -> None:
    path = circuit.save(tmp_path / "circuit.json")
    assert Circuit.open(path) == circuit
    other = tmp_path / "other.json"
    other.write_text('{"format": "something"}')
    with pytest.raises(ValueError, match="not a saved circuit: its format is 'something'"):
        Circuit.open(other)
    other.write_text("no json")
    with pytest.raises(ValueError, match=r"other\.json is not a saved circuit"):
        Circuit.open(other)


def test_networkx_has_the_same_graph(circuit: Circuit, tmp_path: Path) -> None:
    graph = circuit.to_networkx()
    assert {(a, b): w for a, b, w in graph.edges(data="weight")} == pytest.approx(WEIGHTS)
    node = graph.nodes["res/1 feature 5 @4"]
    assert (node["layer"], node["site_kind"], node["index"], node["position"]) == (1, "res", 5, 4)
    assert networkx.is_directed_acyclic_graph(graph)
    path = tmp_path / "circuit.graphml"
    networkx.write_graphml(graph, path)
    again = networkx.read_graphml(path)
    assert {(a, b): w for a, b, w in again.edges(data="weight")} == pytest.approx(WEIGHTS)


def test_tables_hold_nodes_and_edges(circuit: Circuit) -> None:
    nodes, edges = circuit.nodes_frame(), circuit.edges_frame()
    assert list(nodes["name"]) == [node.name for node in circuit.nodes]
    features = nodes[nodes["node"] == "feature"]
    assert features["feature"].tolist() == [2, 3, 4, 5, 6]
    assert features["layer"].tolist() == [0, 0, 1, 1, 2]
    assert edges["weight"].abs().is_monotonic_decreasing
    assert set(zip(edges["source"], edges["target"], strict=True)) == set(WEIGHTS)


def test_causes_are_what_follows_from_the_weights(
    model: Model, suite: RandomSuite, tokens: Tokens
) -> None:
    found = causes(model, suite, tokens, (Site(0), 3), sites=SITES)
    # Without b: place 5 falls by 2 at tokens 3 and 4. Place 6 was relu(6 - 4) = 2 there, and is 6.
    assert found.changes[Site(1)].totals[:8].tolist() == [0, 0, 0, 0, 0, -4, 0, 0]
    assert found.changes[Site(2)].totals[:8].tolist() == [0, 0, 0, 0, 0, 0, 8, 0]
    each = found.changes[Site(2)].tokens
    assert each is not None
    assert each.of(6).tolist() == [0, 0, 0, 4, 4]
    x = tokenize(model.tokenizer, "x").ids[-1]
    assert int(found.logits.argmax()) == x
    assert float(found.logits[x]) == pytest.approx(20 * (1 - 1 / len(found.logits)))
    assert found.estimates == pytest.approx({(Site(2), 6): 8.0, (Site(1), 5): -4.0})
    links = {link.target: link.strength for link in found.links()}
    assert links == {(Site(2), 6): 8.0, (Site(1), 5): -4.0}
    assert all(link.source == (Site(0), 3) and link.tie == "causes" for link in found.links())
    more = causes(model, suite, tokens, (Site(0), 3), how=1.5, sites=SITES)
    assert more.changes[Site(1)].totals[5] == pytest.approx(2)
    assert more.changes[Site(2)].totals[6] == pytest.approx(-4)


def test_the_figure_holds_every_node_and_edge(circuit: Circuit) -> None:
    drawn = figures.circuit(
        circuit.nodes_frame(), circuit.edges_frame(), tokens=circuit.tokens.strings, title="a <b>"
    )
    data = json.loads(str(drawn.to_json()))
    *lines, dots = data["data"]
    assert set(dots["customdata"]) == {node.name for node in circuit.nodes}
    at = dict(zip(dots["customdata"], zip(dots["x"], dots["y"], strict=True), strict=True))
    ends = {((one["x"][0], one["y"][0]), (one["x"][-1], one["y"][-1])) for one in lines}
    assert ends == {(at[edge.source], at[edge.target]) for edge in circuit.edges}
    levels = [at[n][1] for n in ("token @1", "res/0 feature 2 @1", "res/2 feature 6 @4", "target")]
    assert levels == [0, 1, 3, 4]
    assert at["res/1 feature 4 @4"][0] < at["res/1 feature 5 @4"][0] < at["target"][0] + 1
    widths = {one["hovertext"].splitlines()[0]: one["line"]["width"] for one in lines}
    assert len(set(widths.values())) == 3, "30, 20 and 10"
    colours = dict(zip(dots["customdata"], dots["marker"]["color"], strict=True))
    assert colours["res/1 feature 4 @4"] == figures.LINE != colours["res/1 feature 5 @4"]
    assert data["layout"]["title"]["text"] == "a &lt;b&gt;"
