# --8<-- [start:triples]
import keras
import matplotlib.pyplot as plt
import numpy as np
import scipy.special
import scipy.stats
from keras import ops

from aimodels.datasets import knowledge_graph
from aimodels.knowledge import (
    SCORES,
    KnowledgeGraph,
    encode,
    metrics,
    other_answers,
    ranks,
)
from aimodels.training import batches, make_step, train

graph = knowledge_graph("umls")
entities, relations = graph.entities, graph.relations
E, R = len(entities), len(relations)


def told(triple):
    head, relation, tail = triple
    return f"{entities[head]} {relations[relation]} {entities[tail]}"


print(E, "entities,", R, "relations")
print("train, valid, test:", *(len(part) for part in graph[2:]))
for row in (1, 24, 1000):
    print(graph.train[row], told(graph.train[row]))
# --8<-- [end:triples]

# --8<-- [start:questions]
(asked,) = encode([("virus", "causes", "neoplastic_process")], *graph[:2])
known = np.concatenate([graph.train, graph.valid, graph.test])
head, relation, tail = asked

same = known[(known[:, 0] == head) & (known[:, 1] == relation)]
print("virus causes ?", *(entities[e] for e in same[:, 2]), sep="\n    ")
same = known[(known[:, 1] == relation) & (known[:, 2] == tail)]
print("? causes neoplastic_process:", len(same), "answers are known")
# --8<-- [end:questions]


# --8<-- [start:by-hand]
def by_hand(score, h, r, t):  # (1)!
    if score == "transe":
        return -np.abs(h + r - t).sum(-1)
    if score == "distmult":
        return (h * r * t).sum(-1)
    if score == "complex":
        return (h * r * t.conj()).real.sum(-1)
    return -np.abs(h * np.exp(1j * r) - t).sum(-1)


def numbers(x):  # (2)!
    return np.concatenate([x.real, x.imag], -1)


rng = np.random.default_rng(0)
for score in SCORES:
    paired = score in ("complex", "rotate")
    parts = rng.normal(size=(2, 3, 5, 4))
    h, r, t = parts[0] + 1j * paired * parts[1]
    angles = score == "rotate"
    r = r.real if angles else r
    if paired:
        rows = numbers(h), r if angles else numbers(r), numbers(t)
    else:
        h, r, t = rows = h.real, r.real, t.real
    found = np.array(SCORES[score](*rows))
    same = np.allclose(found, by_hand(score, h, r, t))
    print(f"{score:8}", *(x.shape for x in rows), found.shape, same)
# --8<-- [end:by-hand]

# --8<-- [start:directions]
h, t = rng.normal(size=(2, 1000, 8)).astype("float32")
free = {"transe": 8, "distmult": 8, "complex": 8, "rotate": 4}
free = {s: rng.normal(size=n).astype("float32") for s, n in free.items()}
half = np.repeat(np.float32([1, 0]), 4)
special = {
    "transe, r = 0": ("transe", 0 * free["transe"]),
    "distmult": ("distmult", free["distmult"]),
    "complex, real": ("complex", free["complex"] * half),
    "complex, imaginary": ("complex", free["complex"] * (1 - half)),
    "rotate, half turns": ("rotate", np.float32([0, np.pi, np.pi, 0])),
    "transe": ("transe", free["transe"]),
    "complex": ("complex", free["complex"]),
    "rotate": ("rotate", free["rotate"]),
}
print("largest |f(h,r,t) - f(t,r,h)| and |f(h,r,t) + f(t,r,h)|")
for name, (score, r) in special.items():
    there, back = (np.array(SCORES[score](*x)) for x in ((h, r, t), (t, r, h)))
    gaps = np.abs(there - back).max(), np.abs(there + back).max()
    print(f"{name:19}", *("0" if g < 1e-5 else f"{g:.0f}" for g in gaps))
# --8<-- [end:directions]

# --8<-- [start:twice]
r = free["transe"]
both = SCORES["transe"](h, r, t) + SCORES["transe"](t, r, h)
print(f"at most   {-2 * np.abs(r).sum():.2f}")
print(f"best seen {np.max(both):.2f} of {len(h)} pairs")
# --8<-- [end:twice]


# --8<-- [start:composition]
def high(score, h, r, t):
    return float(SCORES[score](np.array(h), np.array(r), np.array(t)))


x = rng.normal(size=4) + 1j * rng.normal(size=4)
r1, r2 = rng.normal(size=(2, 4))
y = x * np.exp(1j * r1)
z = y * np.exp(1j * r2)
for name, r in (("r1 + r2", r1 + r2), ("r1", r1)):
    print(f"rotate {name:8}{high('rotate', numbers(x), r, numbers(z)):6.2f}")

steps = [1.0, 1.0]  # (1)!
worst = []
for _ in range(1000):
    r3 = rng.normal(size=2)
    small = 0.1
    cases = [
        ([1, 0], [1, 0], [1, 0]),
        ([0, 1], [0, 1], [0, 1]),
        ([1, -small], [1, 1], [-small, 1]),
    ]
    for a, b, c in cases:
        assert high("distmult", a, steps, b) > 0
        assert high("distmult", b, steps, c) > 0
    worst.append(min(high("distmult", a, r3, c) for a, _, c in cases))
print("distmult: r3 that fit all three cases:", sum(w > 0 for w in worst))
# --8<-- [end:composition]

# --8<-- [start:ranking]
scores = np.array([[[5.0, 4, 3, 1, 3], [0, 0, 2, 4, 1]]])  # (1)!
triple = np.array([[3, 0, 2]])
others = np.array([[3, 0, 1], [3, 1, 4]])
left_out = other_answers(triple, np.concatenate([triple, others]), 5)
print("left out as tail:", np.flatnonzero(left_out[0, 0]))
for ties in ("optimistic", "realistic", "pessimistic"):
    raw = ranks(scores, triple, ties=ties)[0]
    filtered = ranks(scores, triple, left_out, ties)[0]
    print(f"{ties:12} raw {raw}  filtered {filtered}")
for name, value in metrics(
    ranks(scores, triple, left_out), hits=(1, 3)
).items():
    print(f"{name:7}{value:.3f}")
# --8<-- [end:ranking]

# --8<-- [start:baselines]
facts = np.zeros((R, E, E))
facts[graph.train[:, 1], graph.train[:, 0], graph.train[:, 2]] = 1
backward = facts.transpose(0, 2, 1)


def frequency(triples):  # (1)!
    tails = facts.sum(1) / np.maximum(facts.any(2).sum(1, keepdims=True), 1)
    heads = facts.sum(2) / np.maximum(facts.any(1).sum(1, keepdims=True), 1)
    return np.stack([tails[triples[:, 1]], heads[triples[:, 1]]], 1)


bodies = np.concatenate([facts, backward])  # (2)!
hold = np.einsum("rij,bij->rb", facts, bodies, optimize=True)
trust = hold / (bodies.sum((1, 2)) + 5)
trust[np.arange(R), np.arange(R)] = 0  # (3)!


def rules(triples):
    found = [
        [
            (trust[r][:, None] * bodies[:, h]).max(0),
            (trust[r][:, None] * bodies[:, :, t]).max(0),
        ]
        for h, r, t in triples
    ]
    return frequency(triples) + np.array(found)


left_out = other_answers(graph.test, known, E)


def judged(scores, rows=slice(None), ties="realistic", out=left_out):
    return metrics(ranks(scores, graph.test, out, ties)[rows])


print("              " + "  ".join(judged(frequency(graph.test))))
for name, score in (("frequency", frequency), ("and rules", rules)):
    values = judged(score(graph.test)).values()
    print(f"{name:12}", *(f"{value:6.3f}" for value in values))
# --8<-- [end:baselines]

# --8<-- [start:leak]
h, r, t = graph.test.T
leaks = {
    "the same relation, backward": facts[r, t, h] > 0,
    "any relation, forward": facts[:, h, t].any(0),
    "any relation, backward": facts[:, t, h].any(0),
}
leaks["any, in either direction"] = (
    leaks["any relation, forward"] | (leaks["any relation, backward"])
)
for name, rows in leaks.items():
    print(f"{name:28}{rows.mean():.2f}")
seen = leaks["any, in either direction"]
print("pairs never seen together:", (~seen).sum(), "of", len(seen))
# --8<-- [end:leak]

# --8<-- [start:loops]
print("triples from an entity to itself:", (known[:, 0] == known[:, 2]).sum())
not_self = left_out.copy()
every = np.arange(len(graph.test))
not_self[every, 0, graph.test[:, 0]] = True  # (1)!
not_self[every, 1, graph.test[:, 2]] = True
for name, score in (("frequency", frequency), ("and rules", rules)):
    scores = score(graph.test)
    before, after = judged(scores)["MRR"], judged(scores, out=not_self)["MRR"]
    print(f"{name}: MRR {before:.3f} to {after:.3f}")
# --8<-- [end:loops]


# --8<-- [start:train]
def one_of_all(answers, scores):
    losses = keras.losses.sparse_categorical_crossentropy
    return ops.mean(losses(answers, scores, from_logits=True))


def fit(score, rate, seed=0, steps=400, loss=one_of_all):
    keras.utils.set_random_seed(seed)
    model = KnowledgeGraph(E, R, 32, score)
    falling = keras.optimizers.schedules.CosineDecay(rate, steps)
    optimizer = keras.optimizers.Adam(falling)
    step = make_step(model, optimizer, loss, jit_compile=True)
    source = batches(graph.train, 256, seed)
    pairs = ((x, x[:, [2, 0]]) for x in source)  # (1)!
    return model, train(step, pairs, steps)


models, answers = {}, {}
for score in SCORES:
    models[score], losses = fit(score, rate=0.1)
    answers[score] = np.array(models[score](graph.test))
    size = models[score].count_params()
    print(f"{score:9}{size} numbers, loss {losses[0]:.1f}", end=" ")
    print(f"to {losses[-20:].mean():.1f}", end=", ")
    print(f"MRR {judged(answers[score])['MRR']:.2f}")
# --8<-- [end:train]

# --8<-- [start:long-table]
import os

if "HANDBOOK_LONG" in os.environ:
    others_valid = other_answers(graph.valid, known, E)

    def on_valid(model):
        scores = np.array(model(graph.valid))
        return metrics(ranks(scores, graph.valid, others_valid))["MRR"]

    names = ("MRR", "Hits@1", "Hits@3", "Hits@10", "MRR not self")
    print("          rate ", *(f"{name:13}" for name in names))
    for score in SCORES:
        tried = {
            rate: on_valid(fit(score, rate, seed=9)[0])
            for rate in (0.03, 0.1, 0.3)
        }
        rate = max(tried, key=tried.get)
        runs = []
        for seed in range(5):
            scores = np.array(fit(score, rate, seed)[0](graph.test))
            found = (
                *judged(scores).values(),
                judged(scores, out=not_self)["MRR"],
            )
            runs.append(found)
        means, spread = np.mean(runs, 0), np.std(runs, 0, ddof=1)
        pairs = zip(means, spread, strict=True)
        cells = (f"{mean:.3f} ± {s:.3f}" for mean, s in pairs)
        print(f"{score:9} {rate:<5}", *cells, sep=" ")
# --8<-- [end:long-table]

# --8<-- [start:unseen]
answers = {
    "frequency": frequency(graph.test),
    "rules": rules(graph.test),
} | answers
print("            pair seen  never seen")
for name, scores in answers.items():
    parts = [
        judged(scores, rows, out=not_self)["MRR"] for rows in (seen, ~seen)
    ]
    print(f"{name:12}{parts[0]:9.2f}{parts[1]:12.2f}")
# --8<-- [end:unseen]

# --8<-- [start:relations]
kind = graph.test[:, 1]
asked = np.bincount(kind, minlength=R)
often = [r for r in np.argsort(-asked, kind="stable") if asked[r] >= 20]
table = np.array(
    [
        [judged(scores, kind == r, out=not_self)["MRR"] for r in often]
        for scores in answers.values()
    ]
)
figure, axis = plt.subplots(figsize=(6.4, 4.2))
marks = dict(zip(answers, "|xv^so", strict=True))
for (name, mark), row in zip(marks.items(), table, strict=True):
    axis.plot(row, np.arange(len(often)), mark, label=name)
labels = [f"{relations[r]} ({asked[r]})" for r in often]
axis.set_yticks(np.arange(len(often)), labels)
axis.invert_yaxis()
axis.set(xlabel="MRR, the entity itself left out", xlim=(0, 1.02))
axis.legend(loc="lower left")
print(len(often), "relations have at least 20 test triples")
for name, row in zip(answers, table, strict=True):
    print(f"{name:10} {row.min():.2f} to {row.max():.2f}")
# --8<-- [end:relations]

# --8<-- [start:one-way]
truths = set(map(tuple, known.tolist()))
one_way = np.array([(t, r, h) not in truths for h, r, t in graph.test.tolist()])
turned = graph.test[:, [2, 1, 0]]
print(one_way.sum(), "test triples hold in one direction only")
for score, model in models.items():
    there = np.take_along_axis(answers[score][:, 0], graph.test[:, 2:], 1)[:, 0]
    back = np.array(model(turned))[:, 0]
    back = np.take_along_axis(back, turned[:, 2:], 1)[:, 0]
    right, equal = (there > back)[one_way], (there == back)[one_way]
    print(f"{score:9} right {right.mean():.2f}  equal {equal.mean():.2f}")
# --8<-- [end:one-way]

# --8<-- [start:symmetry]
counts = facts.sum((1, 2))
large = counts >= 20
mirrored = (facts * backward).sum((1, 2))[large] / counts[large]

vectors = {s: m.relations.numpy()[large] for s, m in models.items()}
real, imaginary = vectors["complex"][:, :16], vectors["complex"][:, 16:]
share = (imaginary**2).sum(1) / (vectors["complex"] ** 2).sum(1)
drawn = {
    "TransE: sum of |r|": np.abs(vectors["transe"]).sum(1),
    "ComplEx: imaginary share": share,
    "RotatE: mean of |sin θ|": np.abs(np.sin(vectors["rotate"])).mean(1),
}
figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.8), layout="constrained")
for axis, (name, values) in zip(axes, drawn.items(), strict=True):
    axis.plot(mirrored, values, "o", alpha=0.6)
    axis.set_title(name, fontsize="medium")
    axis.set_ylim(0, None)
    low, top = values[mirrored < 0.05].mean(), values[mirrored > 0.7].mean()
    print(f"{name:25} one-way {low:5.2f}, symmetric {top:5.2f}")
axes[1].set_xlabel("share of triples whose reverse holds")
# --8<-- [end:symmetry]

# --8<-- [start:long-new]
if "HANDBOOK_LONG" in os.environ:
    every = np.array([(h, r, 0) for h in range(E) for r in range(R)])
    p = 0
    for seed in range(5):
        model, _ = fit("complex", 0.1, seed)
        parts = np.array_split(every, 20)
        tails = np.concatenate([np.array(model(part))[:, 0] for part in parts])
        p = p + scipy.special.softmax(tails, 1).reshape(E, R, E) / 5
    expected = p * facts.sum(2).T[:, :, None]  # (1)!
    expected[tuple(graph.train.T)] = 0

    order = np.argsort(-expected, axis=None)[:1000]
    guesses = np.stack(np.unravel_index(order, expected.shape), 1)
    found = np.array([tuple(guess) in truths for guess in guesses.tolist()])
    loops = guesses[:, 0] == guesses[:, 2]
    for first in (10, 100, 1000):
        part = found[:first].sum(), (loops & ~found)[:first].sum()
        print(
            f"of {first:4}: {part[0]} held out, {part[1]} from x to x", end=", "
        )
        print(first - sum(part), "others")
    for guess in guesses[~found & ~loops][:8]:
        print("   ", told(guess))
# --8<-- [end:long-new]

# --8<-- [start:peer]
methods = {"optimistic": "min", "realistic": "average", "pessimistic": "max"}
largest = 0
for trial in range(20):
    rng = np.random.default_rng(trial)
    size = int(rng.integers(1, 30))
    scores = rng.integers(0, 6, (8, 2, size)).astype(float)  # (1)!
    triples = rng.integers(0, size, (8, 3))
    out = other_answers(triples, rng.integers(0, size, (40, 3)), size)
    for ties, method in methods.items():
        ours = ranks(scores, triples, out, ties)
        for n in range(8):
            for side, answer in enumerate((triples[n, 2], triples[n, 0])):
                stay = np.flatnonzero(~out[n, side])
                theirs = scipy.stats.rankdata(-scores[n, side, stay], method)
                gap = np.abs(ours[n, side] - theirs[stay == answer][0])
                largest = max(largest, gap)
print("largest difference:", largest)
# --8<-- [end:peer]

# --8<-- [start:ties]
zeros = np.zeros((len(graph.test), 2, E))
rounded = answers["rotate"].round()  # (1)!
print("MRR         optimistic  realistic  pessimistic")
cases = {"all zeros": zeros, "rotate": answers["rotate"], "rounded": rounded}
cases["frequency"] = answers["frequency"]
for name, scores in cases.items():
    found = [judged(scores, ties=ties)["MRR"] for ties in methods]
    print(f"{name:10}{found[0]:12.3f}{found[1]:11.3f}{found[2]:13.3f}")
# --8<-- [end:ties]

# --8<-- [start:raw]
print("           raw   filtered")
for name, scores in answers.items():
    raw = metrics(ranks(scores, graph.test))["MRR"]
    print(f"{name:10}{raw:5.2f}{judged(scores)['MRR']:8.2f}")
print(f"other known answers to a question: {left_out.sum(2).mean():.0f}")
# --8<-- [end:raw]

# --8<-- [start:refused]
for task in (
    lambda: ranks(zeros * np.nan, graph.test),
    lambda: encode([("virus", "causes", "influenza")], *graph[:2]),
    lambda: KnowledgeGraph(E, R, 33, "rotate"),
):
    try:
        task()
    except ValueError as error:
        print(error)
# --8<-- [end:refused]


# --8<-- [start:solution-random]
def expected_reciprocal(scores):  # (1)!
    best, worst = (
        ranks(scores, graph.test, left_out, ties)
        for ties in ("optimistic", "pessimistic")
    )
    below = np.concatenate([[0], np.cumsum(1 / np.arange(1, E + 1))])
    sums = below[worst.astype(int)] - below[best.astype(int) - 1]
    return (sums / (worst - best + 1)).mean()


rng = np.random.default_rng(0)
for name in ("all zeros", "frequency", "rotate"):
    shuffled = []
    for _ in range(20):
        order = np.argsort(rng.random((*zeros.shape[:2], E)), -1)  # (2)!
        levels = scipy.stats.rankdata(cases[name], "dense", axis=-1)
        shuffled.append(judged(levels * E + order)["MRR"])
    exact = expected_reciprocal(cases[name])
    realistic = judged(cases[name])["MRR"]
    print(f"{name:10} random {exact:.3f}, realistic {realistic:.3f}")
    assert abs(np.mean(shuffled) - exact) < 0.005
    assert realistic <= exact + 1e-12
# --8<-- [end:solution-random]

# --8<-- [start:solution-negatives]
true_answers = other_answers(graph.train, known, E).mean((0, 1, 2))
print(f"a random entity is a true answer: {true_answers:.2f}")
missing = 1 - (1 - true_answers) ** 8
print(f"at least one of eight is: {missing:.2f}")


def one_of_nine(answers, scores):
    drawn = keras.random.uniform(ops.shape(scores)) < 8 / E  # (1)!
    right = ops.one_hot(answers, E) > 0
    return one_of_all(answers, ops.where(drawn | right, scores, -1e9))


sampled, _ = fit("complex", 0.1, loss=one_of_nine)
mrr = judged(np.array(sampled(graph.test)))["MRR"]
full = judged(answers["complex"])["MRR"]
print(f"MRR with all {E}: {full:.2f}, with about 8 drawn: {mrr:.2f}")
assert 0.1 < true_answers < 0.2
assert full > 0.75
assert mrr > 0.5
# --8<-- [end:solution-negatives]
