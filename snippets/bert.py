# --8<-- [start:hide]
import functools
import os
from collections import defaultdict

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

from aimodels import datasets
from aimodels.activations import gelu
from aimodels.attention import causal_mask
from aimodels.bert import (
    BERT,
    Classifier,
    MaskedLanguageModel,
    mask_tokens,
    parameter_count,
    token_loss,
)
from aimodels.tokenizer import BytePairTokenizer
from aimodels.training import batches, make_step, train

sections = [s for s in datasets.handbook() if s.page != "claims"]
pages = list(dict.fromkeys(s.page for s in sections))
held, learned = [], []
for page in pages:
    own = [s for s in sections if s.page == page]
    held += own[2::4]  # (1)!
    learned += [s for s in own if s not in own[2::4]]
texts = [text for s in learned for text in (s.en, s.zh)]
names = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
tokenizer = BytePairTokenizer.train(texts, 1024, names)
PAD, CLS, SEP, MASK = special = [tokenizer.special[name] for name in names]
V = len(tokenizer)


def hide(ids, rng, rate=0.15):
    return mask_tokens(ids, rng, V, MASK, special, rate=rate)


for line in (
    "The loss of each step is a mean over the batch.",
    "损失是平均值。",
):
    ids = np.array([CLS, *tokenizer.encode(line), SEP])
    read, chosen = hide(ids, np.random.default_rng(3))
    print(tokenizer.decode(read))
    for i in np.flatnonzero(chosen):  # (2)!
        became, was = (tokenizer.decode([x]) for x in (read[i], ids[i]))
        print(f"    to be predicted: {was!r}, shown: {became!r}")
# --8<-- [end:hide]


# --8<-- [start:by-hand]
def norm(x, layer):
    gain, bias = layer.get_weights()
    x = x - x.mean(-1, keepdims=True)
    return gain * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) + bias


def dense(x, layer):
    kernel, bias = layer.get_weights()
    return x @ kernel + bias


def by_hand(model, ids, kinds):
    bert = model.encoder
    tokens, places = bert.tokens.numpy(), bert.positions.numpy()
    x = tokens[ids] + places[: len(ids)] + bert.kinds.numpy()[kinds]
    x = norm(x, bert.norm)
    for block in bert.blocks:
        q, k, v = (
            dense(x, layer).reshape(len(ids), bert.sizes["heads"], -1)
            for layer in (
                block.attend.query,
                block.attend.key,
                block.attend.value,
            )
        )
        scores = np.einsum("qhf,khf->hqk", q, k) / np.sqrt(q.shape[-1])
        scores[:, :, ids == bert.options["padding"]] = -np.inf  # (1)!
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        read = np.einsum("hqk,khf->qhf", weights, v).reshape(x.shape)
        x = norm(x + dense(read, block.attend.merge), block.norms[0])  # (2)!
        wide = gelu(dense(x, block.feed.widen))
        x = norm(x + dense(wide, block.feed.narrow), block.norms[1])
    turned = norm(gelu(dense(x, model.dense)), model.norm)
    return turned @ tokens.T + model.bias.numpy()  # (3)!


# --8<-- [end:by-hand]
# --8<-- [start:text]
STEPS = 32


def stream(some):
    ids = []
    for text in (text for s in some for text in (s.en, s.zh)):
        ids += [*tokenizer.encode(text), SEP]
    return np.array(ids, "int32")


def windows(some, every):
    rows = np.lib.stride_tricks.sliding_window_view(stream(some), STEPS - 1)
    return np.pad(rows[::every], [(0, 0), (1, 0)], constant_values=CLS)


def lines(some):
    rows, labels = [], []
    for section in some:
        for line in (section.en + "\n" + section.zh).splitlines():
            ids = tokenizer.encode(line)[: STEPS - 2]
            if len(ids) >= 8:
                row = [CLS, *ids, SEP]
                rows.append(row + [PAD] * (STEPS - len(row)))
                labels.append(pages.index(section.page))
    return np.array(rows, "int32"), np.array(labels)


heard, unheard = windows(learned, 8), windows(held, STEPS - 1)
pool_x, pool_y = lines(learned)
test_x, test_y = lines(held)
rng = np.random.default_rng(0)
asked = hide(unheard, rng)[1]
shown = np.where(asked, MASK, unheard)  # (1)!
for name, some in (("learned", learned), ("held out", held)):
    print(f"{name}: {len(some)} sections, {len(stream(some))} tokens")
print("gaps to be filled:", asked.sum())
print("lines to be classified:", len(test_y), "of", len(pages), "pages")
# --8<-- [end:text]

# --8<-- [start:rivals]
text = stream(learned)
alone = np.bincount(text, minlength=V) / len(text)
tables = defaultdict(lambda: np.zeros(V))
for a, b, c in zip(text, text[1:], text[2:], strict=False):
    for key in ((a, None), (None, c), (a, c)):  # (1)!
        tables[key][b] += 1


def gap(left, right):
    p = 0.9 * alone + 0.1 / V
    for key in ((left, None), (None, right), (left, right)):
        if key in tables:
            p = (tables[key] + 2 * p) / (tables[key].sum() + 2)  # (2)!
    return p


def gaps(rule):
    for row, column in np.argwhere(asked):
        beside = [*shown[row], MASK][column - 1 : column + 2 : 2]
        yield unheard[row, column], rule(*beside)


def rate_of(filled):
    truth, p = map(np.array, zip(*filled, strict=True))
    loss = -np.log(p[np.arange(len(p)), truth]).mean()
    return loss, (p.argmax(-1) == truth).mean()


rivals = {
    "token frequencies": rate_of(gaps(lambda left, right: gap(None, None))),
    "left neighbour": rate_of(gaps(lambda left, right: gap(left, None))),
    "both neighbours": rate_of(gaps(gap)),
}
for name, (loss, right) in rivals.items():
    print(f"{name:18} loss {loss:.2f}, right {right:.3f}")
# --8<-- [end:rivals]

# --8<-- [start:pretrain]
keras.utils.set_random_seed(1)
bert = BERT(V, STEPS, 64, 4, 2, padding=PAD, rotary=True)
model = MaskedLanguageModel(bert)
optimizer = keras.optimizers.AdamW(
    weight_decay=0.01, beta_2=0.98, global_clipnorm=1.0
)


def hidden_loss(target, logits):
    ids, chosen = target
    return token_loss(ids, logits, chosen)


step = make_step(model, optimizer, hidden_loss, jit_compile=True)
fresh = [variable.numpy() for variable in model.variables]
untrained = bert.get_weights()
after_pretraining = [variable.numpy() for variable in model.variables]


def score(model):
    logits = np.array(model(shown, training=False))[asked]
    ids, rows = unheard[asked], np.arange(asked.sum())
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return -logits[rows, ids].mean(), (logits.argmax(-1) == ids).mean()


def pretrain(model, step, optimizer, steps, rate, *, looks=4, peak=0.004):
    for variable, value in zip(model.variables, fresh, strict=True):
        variable.assign(value)
    for variable in optimizer.variables:
        variable.assign(np.zeros(variable.shape))
    optimizer.learning_rate, curve = 0.0, []
    rng = np.random.default_rng(0)

    def exercises():
        for ids in batches(heard, 16, seed=0):
            read, chosen = hide(ids, rng, rate)  # (1)!
            yield read, (ids, chosen)

    def after(number, loss):
        warm, left = number / (steps / 10), (1 - number / steps) / 0.9
        optimizer.learning_rate = peak * min(1, warm, left)  # (2)!
        if number % (steps // looks) == 0:
            curve.append((number, *score(model)))

    train(step, exercises(), steps, after=after)
    return np.array(curve)


print("parameters:", model.count_params())
curve = pretrain(model, step, optimizer, 1400, 0.4, looks=7)
for number, loss, right in curve[::2]:
    print(f"step {number:4.0f}: loss {loss:.2f}, right {right:.3f}")
trained = bert.get_weights()
after_pretraining = [variable.numpy() for variable in model.variables]
# --8<-- [end:pretrain]

# --8<-- [start:curve]
figure, axis = plt.subplots()
axis.plot(curve[:, 0], curve[:, 1], "o-", label="network")
for number, (name, (loss, _)) in enumerate(rivals.items(), 1):
    axis.axhline(loss, color=f"C{number}", ls="--", label=name)
axis.set(xlabel="step", ylabel="loss on hidden tokens", ylim=(3.5, 7.5))
axis.legend(ncols=2, loc="upper right")
# --8<-- [end:curve]


# --8<-- [start:classify]
def disturb(rows, rng):
    mixed = rows.copy()
    for row in mixed:
        end = np.flatnonzero(row == SEP)[0]
        row[1:end] = rng.permutation(row[1:end])
    return mixed


def order(rows, seed):
    mixed = disturb(rows, np.random.default_rng(seed))
    return np.concatenate([rows, mixed]), np.repeat([0, 1], len(rows))


tasks = {
    "order": (*order(pool_x, 0), *order(test_x, 1)),
    "page": (pool_x, pool_y, test_x, test_y),
}


@functools.cache
def classifier_of(classes):
    network = Classifier(bert, classes, dropout=0.1)
    adam = keras.optimizers.AdamW(weight_decay=0.01, global_clipnorm=1.0)
    return network, adam, make_step(network, adam, token_loss, True)


def chosen_lines(labels, count, seed):
    rng = np.random.default_rng(seed)
    each = (np.flatnonzero(labels == c) for c in range(labels.max() + 1))
    return np.concatenate([rng.permutation(rows)[:count] for rows in each])


def tune(weights, count, seed, steps=150, peak=0.001, *, task="page"):
    x, y, unseen_x, unseen_y = tasks[task]
    network, adam, learn = classifier_of(y.max().item() + 1)
    keras.utils.set_random_seed(seed)  # (1)!
    bert.set_weights(weights)
    for layer in (network.pooler, network.last):
        start = keras.initializers.GlorotUniform(seed)
        layer.kernel.assign(start(layer.kernel.shape))
        layer.bias.assign(np.zeros(layer.bias.shape))
    for variable in adam.variables:
        variable.assign(np.zeros(variable.shape))
    adam.learning_rate = 0.0

    def after(number, loss):
        warm, left = number / (steps / 10), (1 - number / steps) / 0.9
        adam.learning_rate = peak * min(1, warm, left)

    rows = chosen_lines(y, count, seed)
    train(learn, batches((x[rows], y[rows]), 32, seed), steps, after=after)
    answers = np.array(network(unseen_x, training=False)).argmax(-1)
    return np.mean(answers == unseen_y)


def bag(rows):
    counts = np.array([np.bincount(row, minlength=V) for row in rows])
    counts[:, special] = 0
    return np.log1p(counts)


def bag_of_tokens(count, seed, *, task="page"):
    x, y, unseen_x, unseen_y = tasks[task]
    rows = chosen_lines(y, count, seed)
    rival = LogisticRegression(max_iter=500).fit(bag(x[rows]), y[rows])
    return rival.score(bag(unseen_x), unseen_y)


def shown_as(values):
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


seeds = range(3)
for name, right in {
    "pre-trained": [tune(trained, 64, s, task="order") for s in seeds],
    "from scratch": [tune(untrained, 64, s, task="order") for s in seeds],
    "bag of tokens": [bag_of_tokens(64, s, task="order") for s in seeds],
}.items():
    print(f"{name:13} {shown_as(right)}")
# --8<-- [end:classify]

# --8<-- [start:long-pretrain]
if "HANDBOOK_LONG" in os.environ:  # (1)!

    class LeftOnly(MaskedLanguageModel):
        def call(self, ids):
            return super().call(ids, attention_mask=causal_mask(STEPS))

    def variant(kind, rotary):
        network = kind(BERT(V, STEPS, 64, 4, 2, padding=PAD, rotary=rotary))
        rule = keras.optimizers.AdamW(
            weight_decay=0.01, beta_2=0.98, global_clipnorm=1.0
        )
        one = make_step(network, rule, hidden_loss, jit_compile=True)
        return pretrain(network, one, rule, 6000, 0.4)

    results = {"15 % hidden": pretrain(model, step, optimizer, 6000, 0.15)}
    results["40 % hidden"] = pretrain(model, step, optimizer, 6000, 0.4)
    longest = bert.get_weights()
    results["left side only"] = variant(LeftOnly, True)
    results["no rotation"] = variant(MaskedLanguageModel, False)
    for name, looks in results.items():
        for number, loss, right in looks[1::2]:
            print(f"{name:14} step {number:.0f}:", end=" ")
            print(f"loss {loss:.2f}, right {right:.3f}")
# --8<-- [end:long-pretrain]

# --8<-- [start:long-classes]
if "HANDBOOK_LONG" in os.environ:
    counts, table = (4, 16, 64), defaultdict(list)
    for count in counts:
        for seed in range(5):
            for peak in (0.001, 0.003):
                for name, start in (
                    ("pre-trained", longest),
                    ("from scratch", untrained),
                ):
                    right = tune(start, count, seed, 200, peak)
                    table[f"{name}, rate {peak}", count].append(right)
            table["bag of tokens", count].append(bag_of_tokens(count, seed))
    names = list(dict.fromkeys(name for name, _ in table))
    print("lines a class             ", *(f"{c:15}" for c in counts))
    for name in names:
        cells = [shown_as(table[name, count]) for count in counts]
        print(f"{name:26}", *(f"{cell:>15}" for cell in cells))

    figure, axis = plt.subplots()
    for name, mark in (
        ("pre-trained, rate 0.001", "o-"),
        ("from scratch, rate 0.001", "s--"),
        ("bag of tokens", "^:"),
    ):
        values = np.array([table[name, count] for count in counts])
        axis.errorbar(
            counts,
            values.mean(1),
            values.std(1, ddof=1),
            fmt=mark,
            capsize=4,
            label=name.split(",")[0],
        )
    axis.set(xscale="log", xticks=counts, xticklabels=counts)
    axis.set(xlabel="labelled lines a class", ylabel="accuracy")
    axis.minorticks_off()
    axis.legend()
# --8<-- [end:long-classes]


# --8<-- [start:sizes]
def breakdown(vocabulary, steps, width, depth):
    vectors = parameter_count(vocabulary, steps, width, 0)
    whole = parameter_count(vocabulary, steps, width, depth)
    return {
        "vectors and their norm": vectors,
        "blocks": whole - vectors,
        "pooler": width * width + width,
    }


for name, size in {
    "BERT-base": (30522, 512, 768, 12),
    "BERT-large": (30522, 512, 1024, 24),
}.items():
    parts = breakdown(*size)
    print(f"{name}: {sum(parts.values()):,}")
    for part, count in parts.items():
        print(f"    {part:23} {count:12,}")
# --8<-- [end:sizes]


# --8<-- [start:peer]
def agreement(trial):
    rng = np.random.default_rng(trial)
    vocabulary, steps, heads, head, depth = rng.integers(2, 12, 5).tolist()
    kinds = int(rng.integers(1, 4))
    bert = BERT(
        vocabulary,
        steps,
        heads * head,
        heads,
        depth,
        segments=kinds,
        padding=0,
    )
    other = MaskedLanguageModel(bert)
    other.set_weights([rng.normal(size=w.shape) / 3 for w in other.weights])
    ids = rng.integers(1, vocabulary, steps)
    real = np.arange(steps) < rng.integers(1, steps + 1)  # (1)!
    ids = np.where(real, ids, 0)
    kinds = rng.integers(0, kinds, steps)
    ours = np.array(other(ids[None], kinds[None]))[0, real]
    theirs = by_hand(other, ids, kinds)[real]
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


worst = max(agreement(trial) for trial in range(6))
print("largest relative difference below 1e-5:", worst < 1e-5)
# --8<-- [end:peer]

# --8<-- [start:invariants]
for variable, value in zip(model.variables, after_pretraining, strict=True):
    variable.assign(value)  # (1)!
short = np.array([[CLS, *tokenizer.encode("The loss is a mean."), SEP]])
padded = np.pad(short, [(0, 0), (0, 5)], constant_values=PAD)
gap = np.array(padded)
gap[0, 3] = MASK
here = short.shape[1]
before, after = np.array(model(short)), np.array(model(padded))[:, :here]
print("padding changes a step:", np.abs(before - after).max() > 1e-4)
hidden = np.array(model(gap))[:, :here]
moved = (np.abs(before - hidden).max(-1) > 1e-4).sum()
print(f"a hidden token changes {moved} of {here} steps")
# --8<-- [end:invariants]


# --8<-- [start:all-places]
def loss_on(counted):
    return float(token_loss(unheard, model(shown), counted))


print(f"loss on hidden tokens: {loss_on(asked):.2f}")
print(f"loss on shown tokens:  {loss_on(~asked):.2f}")
print(f"loss on all tokens:    {loss_on(asked | ~asked):.2f}")
# --8<-- [end:all-places]

# --8<-- [start:read-padding]
careless = MaskedLanguageModel(BERT(V, STEPS, 64, 4, 2, rotary=True))  # (1)!
careless.set_weights(model.get_weights())
length = STEPS // 2
some = np.pad(shown[:, :length], [(0, 0), (0, length)], constant_values=PAD)
for name, one in (("hidden", model), ("read", careless)):
    cut, filled = (
        np.array(one(x))[:, :length] for x in (some[:, :length], some)
    )
    change = np.mean((cut.argmax(-1) != filled.argmax(-1))[asked[:, :length]])
    print(f"padding {name}: {change:.2f} of the answers change")
# --8<-- [end:read-padding]

# --8<-- [start:solution-wrong]
rng = np.random.default_rng(0)
ids = rng.integers(0, V - 4, 200_000)
read, chosen = hide(ids, rng)
plain = read != MASK
wrong = np.mean(read[plain] != ids[plain])
share = 0.15 * 0.1 / (1 - 0.15 * 0.8)
print(f"wrong among those shown: {wrong:.3f}, computed: {share:.3f}")
assert abs(wrong - share) < 0.002
# --8<-- [end:solution-wrong]

# --8<-- [start:solution-passes]
for rate in (0.15, 0.4):
    passes = int(np.ceil(np.log(0.01) / np.log(1 - rate)))
    never = np.ones(20_000, bool)
    for _ in range(passes):
        never &= ~hide(ids[:20_000], rng, rate)[1]
    print(f"rate {rate}: {passes} passes, left over {never.mean():.3f}")
    assert never.mean() < 0.012
# --8<-- [end:solution-passes]
