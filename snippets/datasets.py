# --8<-- [start:rules]
import numpy as np

from aimodels.datasets import split, standardize

rows = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 6.0], [6.0, 5.0]])
train, test = split(len(rows), test=1, rng=np.random.default_rng(0))
print("train rows", train, "test rows", test)
scaled_train, scaled_test = standardize(rows[train], rows[test])  # (1)!
print("mean", scaled_train.mean(axis=0).round(3))
print("deviation", scaled_train.std(axis=0).round(3))  # (2)!
print("test", scaled_test.round(3))
# --8<-- [end:rules]

# --8<-- [start:diabetes]
import matplotlib.pyplot as plt

from aimodels.datasets import diabetes

table = diabetes()
print(table.x.shape, table.y.shape)
for name, low, middle, high in zip(
    table.names,
    table.x.min(axis=0),
    np.median(table.x, axis=0),
    table.x.max(axis=0),
    strict=True,
):
    print(f"{name:4} {low:6.1f} {middle:6.1f} {high:6.1f}")

figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.4), sharey=True)
axes[0].hist(table.x[:, 2], bins=20, color="C0")
axes[0].set(xlabel="body mass index (kg/m²)", ylabel="patients")
axes[1].hist(table.y, bins=20, color="C1")
axes[1].set(xlabel="progression after one year")
# --8<-- [end:diabetes]

# --8<-- [start:breast-cancer]
from aimodels.datasets import breast_cancer

masses = breast_cancer()
print(masses.x.shape, np.bincount(masses.y))  # (1)!
for column in (0, 10, 20):
    low, middle, high = np.percentile(masses.x[:, column], [0, 50, 100])
    print(f"{masses.names[column]:12} {low:5.2f} {middle:5.2f} {high:5.2f}")
# --8<-- [end:breast-cancer]

# --8<-- [start:digits]
from aimodels.datasets import digits

handwriting = digits()
print(handwriting.x.shape, np.bincount(handwriting.y))
print(handwriting.x[0].astype(int))  # (1)!

figure, axes = plt.subplots(1, 10, figsize=(5.6, 0.8))
for axis, image, label in zip(axes, handwriting.x, handwriting.y, strict=False):
    axis.imshow(image, cmap="Blues")
    axis.set_title(label)
    axis.axis("off")
# --8<-- [end:digits]

# --8<-- [start:vowels]
from aimodels.datasets import japanese_vowels

speech_train, speech_test = japanese_vowels()
print(speech_train.x.shape, speech_test.x.shape)
steps = speech_train.mask.sum(axis=1)
print("steps", steps.min(), "to", steps.max())
print("train", np.bincount(speech_train.y))
print("test ", np.bincount(speech_test.y))

figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.6), sharey=True)
for axis, sample in zip(axes, (0, 120), strict=True):
    spoken = np.where(  # (1)!
        speech_train.mask[sample, :, None], speech_train.x[sample], np.nan
    )
    axis.imshow(spoken.T, aspect="auto", vmin=-1.5, vmax=1.5)
    axis.set_title(f"speaker {speech_train.y[sample]}")
    axis.set_xlabel("step")
axes[0].set_ylabel("coefficient")
# --8<-- [end:vowels]

# --8<-- [start:fashion]
from aimodels.datasets import fashion_mnist

clothes_train, clothes_test = fashion_mnist()
print(clothes_train.x.shape, clothes_test.x.shape, clothes_train.x.dtype)
names = ["T-shirt", "trouser", "pullover", "dress", "coat"]
names += ["sandal", "shirt", "sneaker", "bag", "boot"]

figure, axes = plt.subplots(2, 5, figsize=(5.6, 2.8))
for label, axis in enumerate(axes.flat):
    first = np.argmax(clothes_train.y == label)
    axis.imshow(clothes_train.x[first], cmap="Blues")
    axis.set_title(names[label])
    axis.axis("off")
# --8<-- [end:fashion]

# --8<-- [start:photographs]
from aimodels.datasets import photograph

figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.0))
for axis, name in zip(axes, ("china", "flower"), strict=True):
    picture = photograph(name)
    print(name, picture.shape, picture.dtype)
    axis.imshow(picture[::4, ::4], interpolation="none")
    axis.axis("off")
# --8<-- [end:photographs]

# --8<-- [start:graphs]
from aimodels.datasets import knowledge_graph

for name in ("umls", "nations"):
    graph = knowledge_graph(name)
    print(name, len(graph.entities), "entities", len(graph.relations), end=" ")
    print("relations", [len(part) for part in graph[2:]], "triples")
    head, relation, tail = graph.train[0]  # (1)!
    print("   ", graph.train[0], end=" ")
    print(graph.entities[head], graph.relations[relation], graph.entities[tail])
# --8<-- [end:graphs]

# --8<-- [start:emoji]
from aimodels.datasets import emoji

signs = emoji()
print(signs.images.shape, signs.images.dtype)
shown = ("cat", "sloth", "bicycle", "umbrella", "crab", "kite", "onion")
figure, axes = plt.subplots(1, 7, figsize=(5.6, 1.1))
for axis, name in zip(axes, shown, strict=True):
    row = signs.en.index(name)
    print(name, signs.zh[row])
    axis.imshow(signs.images[row] / 255)
    axis.set_title(name, fontsize=9)
    axis.axis("off")
# --8<-- [end:emoji]

# --8<-- [start:spoken]
from aimodels.datasets import spoken

sounds = spoken()
lengths = np.array([len(sound.wave) for sound in sounds]) / 8000  # (1)!
print(len(sounds), f"sounds of {lengths.min():.1f} to {lengths.max():.1f} s")
for number in range(0, len(sounds), 25):
    print(f"{sounds[number].name:14} {sounds[number].said}")

figure, axes = plt.subplots(1, 2, figsize=(5.6, 1.8), sharey=True)
for axis, name in zip(axes, ("letters/a", "letters/s"), strict=True):
    one = next(sound for sound in sounds if sound.name == name)
    axis.plot(np.arange(len(one.wave)) / 8000, one.wave, linewidth=0.4)
    axis.set_title(one.said)
    axis.set_xlabel("seconds")
# --8<-- [end:spoken]

# --8<-- [start:prices]
from aimodels.datasets import sp500

prices = sp500()
print(prices.x.shape, *prices.names)
print(prices.dates[0], *prices.x[0].round())
wild = prices.dates[prices.x[:, 1] / prices.x[:, 2] > 1.09]  # (1)!
months, counts = np.unique(wild.astype("datetime64[M]"), return_counts=True)
for month, count in zip(months, counts, strict=True):
    print(month, count)
# --8<-- [end:prices]

# --8<-- [start:handbook]
from aimodels.datasets import handbook

text = handbook()
print(len(text), "sections of", len({part.page for part in text}), "pages")
for language in ("en", "zh"):
    words = "\n".join(getattr(part, language) for part in text)
    print(language, len(words), "characters,", len(words.encode()), "bytes")
one = next(part for part in text if part.section == "problem")
print(one.en.splitlines()[1])  # (1)!
print(one.zh.splitlines()[1])
# --8<-- [end:handbook]

# --8<-- [start:fingerprints]
from aimodels.datasets import fingerprint

arrays = {
    "diabetes x": table.x,
    "diabetes y": table.y,
    "breast cancer x": masses.x,
    "breast cancer y": masses.y,
    "digits x": handwriting.x,
    "digits y": handwriting.y,
    "vowels train x": speech_train.x,
    "vowels train y": speech_train.y,
    "vowels test x": speech_test.x,
    "vowels test y": speech_test.y,
    "fashion train x": clothes_train.x,
    "fashion train y": clothes_train.y,
    "fashion test x": clothes_test.x,
    "fashion test y": clothes_test.y,
    "umls train": knowledge_graph("umls").train,
    "umls test": knowledge_graph("umls").test,
    "nations train": knowledge_graph("nations").train,
    "nations test": knowledge_graph("nations").test,
    "emoji en": np.frombuffer("".join(signs.en).encode(), "u1"),
    "emoji zh": np.frombuffer("".join(signs.zh).encode(), "u1"),
    "spoken": np.concatenate([sound.wave for sound in sounds]),
    "S&P 500": prices.x,
    "handbook en": np.frombuffer("".join(t.en for t in text).encode(), "u1"),
    "handbook zh": np.frombuffer("".join(t.zh for t in text).encode(), "u1"),
}
for name, array in arrays.items():
    print(f"{name:16}{len(array):6}  {fingerprint(array)[:12]}")
# --8<-- [end:fingerprints]

# --8<-- [start:peer]
from sklearn.datasets import load_diabetes

theirs = load_diabetes().data
ours = standardize(table.x) / np.sqrt(len(table.x))  # (1)!
print("agrees to 12 digits:", np.allclose(ours, theirs, atol=1e-12))
# --8<-- [end:peer]

# --8<-- [start:order]
last = speech_train.y[-54:]
print("speakers among the last 54 rows:", np.unique(last))
_, drawn = split(len(speech_train.y), test=54, rng=np.random.default_rng(0))
print("among 54 rows drawn:", np.unique(speech_train.y[drawn]))
# --8<-- [end:order]

# --8<-- [start:padding]
first_coefficient = speech_train.x[:, :, 0]
print("mean with padding:", first_coefficient.mean().round(3))
real = first_coefficient[speech_train.mask]
print("mean of what was spoken:", real.mean().round(3))
# --8<-- [end:padding]

# --8<-- [start:wrap]
dark, light = np.uint8([10]), np.uint8([200])
print(dark - light)  # (1)!
print(dark.astype("float32") - light)
# --8<-- [end:wrap]


# --8<-- [start:solution-strata]
def stratified(labels, test_share, rng):
    held_out = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held_out.append(rows[: round(test_share * len(rows))])
    held_out = np.concatenate(held_out)
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    return rng.permutation(kept), rng.permutation(held_out)


rng = np.random.default_rng(0)
kept, held_out = stratified(handwriting.y, 0.2, rng)
assert sorted([*kept, *held_out]) == list(range(len(handwriting.y)))
share = np.bincount(handwriting.y[held_out]) / np.bincount(handwriting.y)
assert np.abs(share - 0.2).max() < 0.005
print(share.round(3))
# --8<-- [end:solution-strata]

# --8<-- [start:solution-masked]
weight = speech_train.mask[:, :, None]
masked_mean = (speech_train.x * weight).sum(axis=1) / weight.sum(axis=1)
assert masked_mean.shape == (270, 12)
for utterance, mask, mean in zip(
    speech_train.x, speech_train.mask, masked_mean, strict=True
):
    assert np.allclose(utterance[mask].mean(axis=0), mean)
# --8<-- [end:solution-masked]

# --8<-- [start:solution-leak]
rng = np.random.default_rng(0)
noise = rng.normal(size=(100, 5000))
coin = rng.integers(0, 2, size=100)
fit, judge = split(100, test=50, rng=rng)


def accuracy(rows_seen):
    signed = 2 * coin[rows_seen] - 1
    chosen = np.argsort(np.abs(signed @ noise[rows_seen]))[-20:]
    centres = [noise[fit][coin[fit] == c][:, chosen].mean(0) for c in (0, 1)]
    away = [((noise[judge][:, chosen] - c) ** 2).sum(1) for c in centres]
    return ((away[1] < away[0]) == coin[judge]).mean()


honest, leaky = accuracy(fit), accuracy(np.arange(100))
print("columns chosen on training rows:", honest)
print("columns chosen on all rows:", leaky)
assert leaky > 0.7 > honest
# --8<-- [end:solution-leak]
