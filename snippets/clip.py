# --8<-- [start:emoji]
import os
import re

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from aimodels import datasets

emoji = datasets.emoji()
print(emoji.images.shape)
rows = np.random.default_rng(1).permutation(len(emoji.en))[:24]
for row in rows[:6]:
    print(emoji.en[row], "|", emoji.zh[row])

figure, axes = plt.subplots(2, 12, figsize=(6, 1.1))
for axis, row in zip(axes.flat, rows, strict=True):
    axis.imshow(emoji.images[row] / 255)
    axis.set_axis_off()
# --8<-- [end:emoji]


# --8<-- [start:by-hand]
def loss_by_hand(queries, keys, temperature):
    u, v = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (queries, keys)
    )
    logits = u @ v.T / temperature
    by_row = np.log(np.exp(logits).sum(axis=1))  # (1)!
    by_column = np.log(np.exp(logits).sum(axis=0))
    own = np.diagonal(logits)
    return (np.mean(by_row - own) + np.mean(by_column - own)) / 2


images = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
texts = np.array([[1.0, 0.2], [0.1, 1.0], [1.0, 0.9]])
for temperature in (10, 1, 0.1):
    right = loss_by_hand(images, texts, temperature)
    wrong = loss_by_hand(images, texts[[1, 2, 0]], temperature)
    print(f"temperature {temperature:4}: {right:.3f}, mixed up {wrong:.3f}")
# --8<-- [end:by-hand]

# --8<-- [start:module]
from aimodels.clip import (
    Towers,
    Vocabulary,
    contrast,
    image_tower,
    ngrams,
    ranks,
    recall,
    sound_tower,
    spectrogram,
    symmetric_loss,
    text_tower,
)

print(f"{float(symmetric_loss(images, texts, 0.1)):.3f}")
print(ranks(images, texts), ranks(images, texts[[1, 2, 0]]))
print(sorted(ngrams("red cat", 3)))
print(sorted(ngrams("红猫")))
# --8<-- [end:module]

# --8<-- [start:split]
PEOPLE = r"\b(wo)?m[ae]n\b|\b(boy|girl|child|people|prince(ss)?|older|old)\b"
PEOPLE += r"|santa claus|mrs. claus"


def kind(name):
    return re.sub(PEOPLE, "person", name.lower())  # (1)!


def divide(seed, share=0.22):
    kinds = np.array([kind(name) for name in emoji.en])
    names = np.unique(kinds)
    _, held = datasets.split(
        len(names), round(share * len(names)), np.random.default_rng(seed)
    )
    out = np.isin(kinds, names[held])
    return np.flatnonzero(~out), np.flatnonzero(out)


def inputs(rows, vocabulary):
    pick = {
        "en": [emoji.en[row] for row in rows],
        "zh": [emoji.zh[row] for row in rows],
    }
    texts = {name: vocabulary(words) for name, words in pick.items()}
    return texts | {"image": (emoji.images[rows] / 255).astype("float32")}


SEEDS = (10, 11, 12)
train_rows, test_rows = divide(SEEDS[0])
print(len(train_rows), "to train,", len(test_rows), "to test")
vocabulary = Vocabulary(
    [names[row] for names in (emoji.en, emoji.zh) for row in train_rows]
)
print(len(vocabulary), "n-grams")
# --8<-- [end:split]

# --8<-- [start:train]
from aimodels.contrastive import augment
from aimodels.training import batches, make_step, train

PAIRS = (("image", "en"), ("image", "zh"))


@tf.function
def changed(images, seed):
    return augment(images, seed, crop=0.8, flip=False, light=0.3, blur=1)


def learn(seed, steps=200, size=128, one_text=True, **temperature):
    keras.utils.set_random_seed(seed)
    rows, _ = divide(seed)
    known = Vocabulary(
        [names[row] for names in (emoji.en, emoji.zh) for row in rows]
    )
    text = text_tower(len(known))
    other = text if one_text else text_tower(len(known))  # (1)!
    model = Towers(
        {"image": image_tower(), "en": text, "zh": other}, **temperature
    )
    step = make_step(model, keras.optimizers.Adam(), contrast(*PAIRS))

    def feed():
        data = batches(inputs(rows, known), size, seed)
        for number, batch in enumerate(data):
            views = changed(batch["image"], tf.constant([seed, number]))
            yield batch | {"image": views}, ()  # (2)!

    return model, known, train(step, feed(), steps)


model, vocabulary, losses = learn(SEEDS[0])
for name, tower in model.towers.items():
    print(f"{name:6}{tower.count_params():10,} parameters")
print(f"loss: chance {np.log(128):.2f}, first {losses[0]:.2f}", end="")
print(f", last {losses[-20:].mean():.2f}")
print(f"temperature {np.exp(float(model.log_temperature)):.3f}")
# --8<-- [end:train]

# --8<-- [start:retrieval]
WAYS = (*PAIRS, *(pair[::-1] for pair in PAIRS), ("en", "zh"), ("zh", "en"))


def read(model, rows, known):
    return {k: np.array(v) for k, v in model(inputs(rows, known)).items()}


def scores(queries, keys):
    found = ranks(queries, keys)
    at = [recall(found, most) for most in (1, 5, 10)]
    return np.array([*at, np.median(found) / len(keys)])  # (1)!


def show(name, numbers):
    print(f"{name:15}" + "".join(f"{number:8.3f}" for number in numbers))


found = read(model, test_rows, vocabulary)
print("                first 1 first 5 first 10 median")
for a, b in WAYS:
    show(f"{a} → {b}", scores(found[a], found[b]))
share = np.array([1, 5, 10]) / len(test_rows)
show("chance", [*share, 0.5])
latin = [bool(re.search("[A-Za-z0-9]", emoji.zh[row])) for row in test_rows]
others = ranks(found["en"], found["zh"])[~np.array(latin)]
print(f"en → zh but for {sum(latin)} names with Latin letters:", end=" ")
print(f"{recall(others, 10):.2f} among the first 10")
# --8<-- [end:retrieval]

# --8<-- [start:search]
asked = np.random.default_rng(2).choice(len(test_rows), 7, replace=False)
figure, axes = plt.subplots(7, 13, figsize=(6.6, 3.8))


def best(name, query):
    rows = {k: found[k] for k in (name, "image")}
    unit = {k: v / np.linalg.norm(v, axis=1)[:, None] for k, v in rows.items()}
    return np.argsort(-unit["image"] @ unit[name][query])[:5]


for line, query in zip(axes, asked, strict=True):
    row = test_rows[query]
    print(emoji.en[row], "|", emoji.zh[row])
    order = [query, None, *best("en", query), None, *best("zh", query)]
    for axis, place in zip(line, order, strict=True):
        axis.set_axis_off()
        if place is not None:
            axis.imshow(emoji.images[test_rows[place]] / 255)
axes[0, 0].set_title("wanted", fontsize=9)
axes[0, 4].set_title("by the English name", fontsize=9)
axes[0, 10].set_title("by the Chinese name", fontsize=9)
# --8<-- [end:search]

# --8<-- [start:zero-shot]
CLASSES = {
    "face": "脸",
    "person": "人",
    "button": "按钮",
    "arrow": "箭头",
    "heart": "心",
    "square": "方块",
}


def classify(model, rows, known):
    words = [emoji.en[row].lower().split() for row in rows]
    kept = [i for i, w in enumerate(words) if len(set(w) & {*CLASSES}) == 1]
    truth = [list(CLASSES).index(*{*words[i]} & {*CLASSES}) for i in kept]
    image = read(model, rows[kept], known)["image"]
    shares = [np.bincount(truth).max() / len(kept)]
    for name, texts in {"en": CLASSES, "zh": CLASSES.values()}.items():
        logits = np.array(model.towers[name](known(list(texts))))
        logits /= np.linalg.norm(logits, axis=1, keepdims=True)
        shares.append(np.mean((image @ logits.T).argmax(axis=1) == truth))
    return len(kept), np.array(shares)


count, shares = classify(model, test_rows, vocabulary)
print(count, "images; share of the largest class, right in English, in Chinese")
print(shares.round(2))
# --8<-- [end:zero-shot]


# --8<-- [start:sound]
def cut(wave):
    loud = np.flatnonzero(np.abs(wave) > 0.02)
    return wave[loud[0] : loud[-1]]


def features(waves):
    steps = {letter: spectrogram(wave) for letter, wave in waves.items()}
    return {letter: (s + 3.3) / 3.2 for letter, s in steps.items()}  # (1)!


letters = {
    sound.said: cut(sound.wave)
    for sound in datasets.spoken()
    if sound.name.startswith("letters/") and len(sound.said) == 1
}


bands = features(letters)
LONGEST = 12
STEPS = 8 * (LONGEST * max(map(len, bands.values())) // 8 + 5)  # (2)!
spelt = [re.sub("[ -]", "", name.lower()) for name in emoji.en]
fits = np.array([s.isascii() and s.isalpha() and len(s) < 13 for s in spelt])


def spell(rows, bands=bands):
    out = np.zeros((len(rows), STEPS, 32), "float32")
    for place, row in zip(out, rows, strict=True):
        steps = np.concatenate([bands[letter] for letter in spelt[row]])
        place[: len(steps)] = steps
    return out


print(fits.sum(), "names of at most 12 letters, no digits")
print(f"a letter takes {0.025 * np.mean([*map(len, bands.values())]):.2f} s")
figure, axis = plt.subplots(figsize=(6, 2))
heard = np.concatenate([bands[letter] for letter in "cat"])
axis.imshow(
    heard.T, origin="lower", aspect="auto", extent=(0, len(heard), 0, 4)
)
axis.set(xlabel="step of 25 ms", ylabel="kHz")
# --8<-- [end:sound]


# --8<-- [start:listen]
def listen(model, known, seed, steps=150):
    keras.utils.set_random_seed(seed)
    rows, _ = divide(seed)
    rows = rows[fits[rows]]
    targets = read(model, rows, known)["en"]  # (1)!
    tau = np.exp(float(model.log_temperature))
    tower = sound_tower()
    step = make_step(
        tower,
        keras.optimizers.Adam(),
        lambda y, heard: symmetric_loss(heard, y, tau),
    )
    train(step, batches((spell(rows), targets), 128, seed), steps)
    return tower


def heard_ways(tower, model, rows, known, bands=bands):
    rows = rows[fits[rows]]
    found = read(model, rows, known)
    heard = np.array(tower(spell(rows, bands)))
    ways = {f"sound → {b}": (heard, found[b]) for b in ("en", "zh", "image")}
    ways["en → image"] = found["en"], found["image"]
    return len(rows), {k: scores(*pair) for k, pair in ways.items()}


ear = listen(model, vocabulary, SEEDS[0])
count, table = heard_ways(ear, model, test_rows, vocabulary)
print(count, "names   first 1 first 5 first 10 median")
for name, numbers in table.items():
    show(name, numbers)
show("chance", [*np.array([1, 5, 10]) / count, 0.5])
# --8<-- [end:listen]

# --8<-- [start:long-seeds]
if "HANDBOOK_LONG" in os.environ:
    everything, classes = {}, []
    for seed in SEEDS:
        first = seed == SEEDS[0]
        trained, known = (model, vocabulary) if first else learn(seed)[:2]
        _, rows = divide(seed)
        rows_of = read(trained, rows, known)
        for a, b in WAYS:
            line = scores(rows_of[a], rows_of[b])
            everything.setdefault(f"{a} → {b}", []).append(line)
        tower = ear if first else listen(trained, known, seed)
        count, table = heard_ways(tower, trained, rows, known)
        for name in [*table][:3]:
            everything.setdefault(name, []).append(table[name])
        classes.append(classify(trained, rows, known)[1])
        print(f"seed {seed}: {len(rows)} held out, {count} of them spelt")
    print("first 10 for each seed, mean, median rank")
    for name, lines in everything.items():
        of_ten = [line[2] for line in lines]
        print(f"{name:15}" + "".join(f"{one:7.3f}" for one in of_ten), end="")
        print(f"{np.mean(of_ten):8.3f}{np.mean([x[3] for x in lines]):8.3f}")
    print("largest class, right in English, in Chinese")
    print(np.round(classes, 2))

    figure, axis = plt.subplots(figsize=(6, 3))
    for place, (name, lines) in enumerate(everything.items()):
        of_ten = [line[2] for line in lines]
        colour = "C1" if "sound" in name else "C0"
        axis.barh(place, np.mean(of_ten), color=colour, alpha=0.5)
        axis.plot(of_ten, [place] * 3, "|", color=colour)
    axis.set_yticks(range(len(everything)), everything)
    axis.invert_yaxis()
    axis.axvline(10 / 300, color="C3", linestyle=":", label="chance, names")
    axis.axvline(10 / 200, color="C3", linestyle="--", label="chance, sounds")
    axis.set_xlabel("share with the right one among the first 10")
    axis.legend()
# --8<-- [end:long-seeds]


# --8<-- [start:long-variants]
def tell(name, table):
    low, mean, high = table.min(0), table.mean(0), table.max(0)
    print(f"{name:16}", end="")
    for cell in zip(mean, low, high, strict=True):
        print("  {:.3f} ({:.3f} to {:.3f})".format(*cell), end="")
    print()


if "HANDBOOK_LONG" in os.environ:
    variants = {
        "two text towers": {"one_text": False},
        "τ = 0.01": {"temperature": 0.01, "learned": False},
        "τ = 0.5": {"temperature": 0.5, "learned": False},
        "batches of 32": {"size": 32, "steps": 800},
    }
    ways = (("en", "image"), ("en", "zh"))
    print("first 10              en → image                 en → zh")
    of_ten = [[x[2] for x in everything[f"{a} → {b}"]] for a, b in ways]
    tell("as above", np.array(of_ten).T)
    for name, options in variants.items():
        of_ten = []
        for seed in SEEDS:
            trained, known, _ = learn(seed, **options)
            _, rows = divide(seed)
            rows_of = read(trained, rows, known)
            of_ten.append([scores(rows_of[a], rows_of[b])[2] for a, b in ways])
        tell(name, np.array(of_ten))
# --8<-- [end:long-variants]

# --8<-- [start:peer]
worst = 0
for trial in range(20):
    rng = np.random.default_rng(trial)
    size, width = rng.integers(2, 40, 2)
    temperature = rng.uniform(0.05, 2)
    a, b = rng.normal(size=(2, size, width)).astype("float32")
    u, v = (keras.utils.normalize(rows, axis=1) for rows in (a, b))
    of_keras = [
        np.mean(
            keras.losses.sparse_categorical_crossentropy(
                np.arange(size), logits / temperature, from_logits=True
            )
        )
        for logits in (u @ v.T, v @ u.T)
    ]
    ours = float(symmetric_loss(a, b, temperature))
    for other in (np.mean(of_keras), loss_by_hand(a, b, temperature)):
        worst = max(worst, abs(ours / other - 1))
print("largest relative difference below 1e-5:", worst < 1e-5)
# --8<-- [end:peer]

# --8<-- [start:errors]
for queries, keys, temperature in (
    (images[:1], texts[:1], 0.1),
    (images, texts, 0),
    (images, texts[:2], 0.1),
):
    try:
        symmetric_loss(queries, keys, temperature)
    except ValueError as error:
        print(error)
# --8<-- [end:errors]

# --8<-- [start:gap]
unit = {
    k: found[k] / np.linalg.norm(found[k], axis=1, keepdims=True)
    for k in ("image", "en", "zh")
}
for a, b in (("image", "image"), ("en", "en"), ("image", "en"), ("en", "zh")):
    cosines = unit[a] @ unit[b].T
    others = cosines[~np.eye(len(cosines), dtype=bool)].mean()
    own = "" if a == b else f", of a pair {np.diagonal(cosines).mean():.2f}"
    print(f"{a} and {b}: mean cosine {others:.2f}{own}")
# --8<-- [end:gap]

# --8<-- [start:noise]
rng = np.random.default_rng(0)
for share in (0, 0.05, 0.2):
    noisy = {
        letter: wave + share * wave.std() * rng.normal(size=len(wave))
        for letter, wave in letters.items()
    }
    _, table = heard_ways(ear, model, test_rows, vocabulary, features(noisy))
    print(f"noise {share:4} of the sound: {table['sound → en'][2]:.2f}")
# --8<-- [end:noise]

# --8<-- [start:solution-both]
both = unit["en"] + unit["zh"]  # (1)!
single = [scores(unit[k], unit["image"])[2] for k in ("en", "zh")]
together = scores(both, unit["image"])[2]
print(f"English {single[0]:.2f}, Chinese {single[1]:.2f}, both {together:.2f}")
assert together > min(single)
# --8<-- [end:solution-both]

# --8<-- [start:solution-temperature]
rng = np.random.default_rng(0)
a, b = rng.normal(size=(2, 6, 4))
tau = tf.Variable(0.3, dtype="float64")
with tf.GradientTape() as tape:
    value = symmetric_loss(a, b, tau)
slope = float(tape.gradient(value, tau))

u, v = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
total = 0
for cosines in (u @ v.T, v @ u.T):
    p = np.exp(cosines / 0.3)
    p /= p.sum(axis=1, keepdims=True)
    expected = (p * cosines).sum(axis=1)
    total += np.mean(np.diagonal(cosines) - expected) / 0.3**2 / 2
print(f"by the tape {slope:.4f}, by the formula {total:.4f}")
assert abs(slope - total) < 1e-6
# --8<-- [end:solution-temperature]
