# --8<-- [start:by-hand]
import numpy as np

y = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0]) == 1
score = np.array([0.9, 0.6, 0.3, 0.7, 0.4, 0.3, 0.2, 0.2, 0.1, 0.1])
said = score >= 0.5

hit, false, missed = (np.sum(m) for m in (said & y, said & ~y, ~said & y))
precision, recall = hit / (hit + false), hit / (hit + missed)
print(f"accuracy  {np.mean(said == y):.2f}")
print(f"precision {precision:.2f} = {hit} of {hit + false}")
print(f"recall    {recall:.2f} = {hit} of {hit + missed}")
print(f"F1        {2 * precision * recall / (precision + recall):.2f}")

above = score[y][:, None] - score[~y]
wins = np.sum(above > 0) + np.sum(above == 0) / 2  # (1)!
print(f"AUC       {wins / above.size:.2f} = {wins} of {above.size} pairs")
# --8<-- [end:by-hand]

# --8<-- [start:network]
from aimodels import mlp
from aimodels.datasets import fashion_mnist
from aimodels.logistic import softmax
from aimodels.metrics import confusion, precision_recall_f1

train, test = fashion_mnist()


def ink(images):  # (1)!
    blocks = images.reshape(-1, 14, 2, 14, 2)
    return blocks.mean(axis=(2, 4)).reshape(-1, 196) / 255


def network(width, seed=0):
    rng = np.random.default_rng(seed)
    start = mlp.initialize([196, width, 10], rng)
    x, truth = ink(train.x[:3000]), train.y[:3000]
    return mlp.train(x, truth, start, rng, rate=0.2, epochs=60, batch=50)[0]


layers = network(64)
logits = mlp.forward(ink(test.x), layers)
answer = logits.argmax(axis=1)
table = confusion(test.y, answer, 10)
each = precision_recall_f1(table)
for k, name in ((1, "trousers"), (4, "coat"), (6, "shirt")):
    print(f"{name:10} precision {each.precision[k]:.2f} ", end="")
    print(f"recall {each.recall[k]:.2f}  F1 {each.f1[k]:.2f}")
print(f"accuracy   {np.mean(answer == test.y):.3f}")
for average in ("micro", "macro", "weighted"):
    f1 = precision_recall_f1(table, average).f1
    print(f"{average:10} F1 {f1:.3f}")
# --8<-- [end:network]

# --8<-- [start:rare]
other = np.flatnonzero(test.y != 6)
few = np.append(other, np.flatnonzero(test.y == 6)[:91])  # (1)!
shirt = (test.y[few] == 6).astype(int)
p = softmax(logits)[few, 6]
print(f"{shirt.sum()} shirts among {len(shirt):,} pieces")
print("             accuracy  precision  recall")
print(f"always no      {np.mean(shirt == 0):.3f}          -    0.00")
for threshold in (0.9, 0.5, 0.1):
    found = confusion(shirt, p >= threshold, 2)
    right = np.trace(found) / found.sum()
    one = precision_recall_f1(found)
    print(f"from p = {threshold}   {right:.3f}       ", end="")
    print(f"{one.precision[1]:.2f}    {one.recall[1]:.2f}")
# --8<-- [end:rare]

# --8<-- [start:curves]
import matplotlib.pyplot as plt
from aimodels.metrics import average_precision, precision_recall, roc, roc_auc

figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.0))
everyone = (test.y == 6).astype(int), softmax(logits)[:, 6]
for (truth, scores), line in ((everyone, "-"), ((shirt, p), "--")):
    share = truth.mean()
    false, true, _ = roc(truth, scores)
    axes[0].plot(false, true, line, label=f"{share:.0%}")
    precision, recall, _ = precision_recall(truth, scores)
    axes[1].step(recall, precision, line, where="pre")  # (1)!
    print(f"shirts {share:4.0%}: ROC-AUC {roc_auc(truth, scores):.2f}", end="")
    print(f", average precision {average_precision(truth, scores):.2f}")
axes[0].plot([0, 1], [0, 1], ":", color="gray")
axes[0].set(xlabel="false alarm rate", ylabel="recall")
axes[0].legend(title="shirts")
axes[1].set(xlabel="recall", ylabel="precision", ylim=(0, 1.05))
# --8<-- [end:curves]

# --8<-- [start:calibration]
from aimodels.metrics import calibration_error, fit_temperature, log_loss
from aimodels.metrics import reliability

held = mlp.forward(ink(train.x[-5000:]), layers)  # (1)!
temperature = fit_temperature(held, train.y[-5000:])
print(f"temperature {temperature:.2f}")
figure, axis = plt.subplots(figsize=(4.6, 3.4))
axis.plot([0, 1], [0, 1], ":", color="gray")
for name, z, mark in (
    ("as trained", logits, "o-"),
    ("divided", logits / temperature, "s--"),
):
    p = softmax(z)
    sure, right = p.max(axis=1), (p.argmax(axis=1) == test.y).astype(int)
    said, seen, count = reliability(right, sure)
    axis.plot(said, seen, mark, label=name)
    print(f"{name:10}  accuracy {right.mean():.4f}", end="")
    print(f"  mean confidence {sure.mean():.3f}")
    print(f"            calibration error {calibration_error(right, sure):.3f}")
    print(f"            log loss {log_loss(test.y, p):.3f}")
axis.set(xlabel="said", ylabel="share right")
axis.legend()
# --8<-- [end:calibration]

# --8<-- [start:brier]
from aimodels.metrics import brier, brier_parts

truth = (test.y == 6).astype(int)
print("shirt or not       Brier = reliability - resolution + uncertainty")
for name, p in (
    ("always 10 %", np.full(10000, 0.1)),
    ("as trained", softmax(logits)[:, 6].round(2)),  # (1)!
    ("divided", softmax(logits / temperature)[:, 6].round(2)),
):
    parts = brier_parts(truth, p)
    total = brier(truth, p)
    assert np.isclose(total, parts[0] - parts[1] + parts[2])
    print(f"{name:16} {total:7.4f}", *(f"{part:12.4f}" for part in parts))
# --8<-- [end:brier]

# --8<-- [start:intervals]
from aimodels.datasets import breast_cancer, split, standardize
from aimodels.linear import predict
from aimodels.logistic import fit_logistic, sigmoid
from aimodels.metrics import bootstrap, wilson

cells = breast_cancer()
seen, unseen = split(569, 169, np.random.default_rng(0))
x, x_new = standardize(cells.x[seen], cells.x[unseen])
weights, bias, _ = fit_logistic(x, cells.y[seen], strength=1)
y, p = cells.y[unseen], sigmoid(predict(x_new, weights, bias))

alarm = p >= 0.5
caught, ill = int(np.sum(alarm & (y == 1))), int(y.sum())
low, high = wilson(caught, ill)
print(f"recall {caught} of {ill}: {caught / ill:.3f} ({low:.3f} to {high:.3f})")


def f1(y, alarm):
    return precision_recall_f1(confusion(y, alarm, 2)).f1[1]


rng = np.random.default_rng(0)
for name, statistic, answers in (("F1", f1, alarm), ("ROC-AUC", roc_auc, p)):
    low, high = bootstrap(statistic, (y, answers), rng)
    print(f"{name} {statistic(y, answers):.3f} ({low:.3f} to {high:.3f})")
# --8<-- [end:intervals]

# --8<-- [start:paired]
from scipy.stats import binomtest


def rounded(weights, bits):
    step = np.abs(weights).max() / (2 ** (bits - 1) - 0.5)
    return step * np.round(weights / step)


def gain(first, second):
    return second.mean() - first.mean()


full = answer == test.y
low, high = wilson(int(full.sum()), 10000)
print(f"full     {full.mean():.4f} ({low:.4f} to {high:.4f})")
for bits in (6, 5, 4):
    coarse = [mlp.Layer(rounded(w, bits), *rest) for w, *rest in layers]
    right = mlp.forward(ink(test.x), coarse).argmax(axis=1) == test.y
    low, high = wilson(int(right.sum()), 10000)
    print(f"{bits} bits   {right.mean():.4f} ({low:.4f} to {high:.4f})")
    low, high = bootstrap(gain, (full, right), rng)
    print(f"  gain  {gain(full, right):+.4f} ({low:+.4f} to {high:+.4f})")
    only = int(np.sum(full & ~right)), int(np.sum(right & ~full))  # (1)!
    print(f"  only one right {only}, ", end="")
    print(f"p = {binomtest(only[0], sum(only)).pvalue:.3f}")
# --8<-- [end:paired]

# --8<-- [start:text]
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

from aimodels.metrics import bleu

english = Tokenizer13a()
reference = "The loss falls in every step, but the test error rises."
candidates = (
    "The loss falls in every step, but the test error rises.",
    "The loss falls with every step, but the test error rises.",
    "In every step the loss falls, but the test error rises.",
    "The loss rises in every step, but the test error falls.",
    "The loss falls.",
)
for candidate in candidates:
    words = [english(text).split() for text in (candidate, reference)]
    found = bleu([words[0]], [[words[1]]])
    print(f"{100 * found.score:5.1f}  {candidate}")
    print("      ", found.precisions.round(2), f"brevity {found.brevity:.2f}")
# --8<-- [end:text]

# --8<-- [start:chinese]
chinese = TokenizerZh()
target = "把损失对每个参数求导，再沿相反的方向走一小步。"
attempt = "求损失对每个参数的导数，再往相反的方向走一小步。"
for name, cut in (("13a", english), ("zh", chinese)):
    words = [cut(text).split() for text in (attempt, target)]
    score = bleu([words[0]], [[words[1]]]).score
    print(f"{name:3}  tokens {len(words[0]):2}, BLEU {100 * score:.1f}")
# --8<-- [end:chinese]

# --8<-- [start:language-model]
from collections import Counter
from itertools import pairwise

from aimodels.datasets import handbook
from aimodels.metrics import bits_per_byte, perplexity
from aimodels.tokenizer import BytePairTokenizer, split_words

texts = [section.en for section in handbook()]
read, unread = "\n".join(texts[:-60]), "\n".join(texts[-60:])
size = len(unread.encode())


def log_probabilities(seen, new, vocabulary, weight=50):  # (1)!
    pairs, ones = Counter(pairwise(seen)), Counter(seen)
    total = len(seen) + vocabulary
    logs = []
    for before, token in pairwise(new):
        alone = (ones[token] + 1) / total
        both = pairs[before, token] + weight * alone
        logs.append(np.log(both / (ones[before] + weight)))
    return np.array(logs)


print("tokens      perplexity  bits per byte")
for vocabulary in (256, 512, 2048):
    tokens = BytePairTokenizer.train([read], vocabulary)
    logs = log_probabilities(
        tokens.encode(read), tokens.encode(unread), vocabulary
    )
    print(f"{vocabulary:11} {perplexity(logs):10.1f}", end="")
    print(f" {bits_per_byte(logs, size):14.2f}")

words = split_words(read)
common = {word for word, _ in Counter(words).most_common(200)}
cut = [
    [w if w in common else "?" for w in split_words(text)]
    for text in (read, unread)
]
logs = log_probabilities(*cut, 201)
share = np.mean([w == "?" for w in cut[1]])
print(f"200 words   {perplexity(logs):10.1f}              -", end="")
print(f"   {share:.0%} are '?'")
# --8<-- [end:language-model]

# --8<-- [start:peer]
import sacrebleu
from sklearn import metrics

p, p_shirt = softmax(logits), softmax(logits)[:, 6]
theirs = metrics.precision_recall_fscore_support(test.y, answer)[:3]
pairs = {
    "confusion": (table, metrics.confusion_matrix(test.y, answer)),
    "precision, recall, F1": (np.array(each), np.array(theirs)),
    "ROC-AUC": (roc_auc(truth, p_shirt), metrics.roc_auc_score(truth, p_shirt)),
    "average precision": (
        average_precision(truth, p_shirt),
        metrics.average_precision_score(truth, p_shirt),
    ),
    "log loss": (log_loss(test.y, p), metrics.log_loss(test.y, p)),
    "Brier": (brier(truth, p_shirt), metrics.brier_score_loss(truth, p_shirt)),
    "Wilson": (
        np.array(wilson(caught, ill)),
        np.array(binomtest(caught, ill).proportion_ci(method="wilson")),
    ),
}
for name, (ours, other) in pairs.items():
    print(f"{name:22} {np.allclose(ours, other, rtol=1e-12, atol=1e-12)}")

tried = [english(text).split() for text in candidates]
ours = bleu(tried, [[tried[0]]] * len(tried)).score
other = sacrebleu.corpus_bleu(candidates, [candidates[:1] * len(tried)]).score
print(f"{'BLEU':22} {np.isclose(ours, other / 100, rtol=1e-12)}")
# --8<-- [end:peer]

# --8<-- [start:degenerate]
import textwrap
import warnings


def ask(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # (1)!
        try:
            return f"{call():.2f}"
        except ValueError as reason:
            return "error: " + textwrap.shorten(str(reason), 44)


ones, none = np.ones(4, int), np.zeros(4, int)
cases = {
    "ROC-AUC, only one class": (
        lambda: metrics.roc_auc_score(ones, p[:4, 0]),
        lambda: roc_auc(ones, p[:4, 0]),
    ),
    "average precision, no positive": (
        lambda: metrics.average_precision_score(none, p[:4, 0]),
        lambda: average_precision(none, p[:4, 0]),
    ),
    "precision, never said": (
        lambda: metrics.precision_score([0, 1, 1], [0, 0, 0]),
        lambda: precision_recall_f1(confusion([0, 1, 1], none[:3], 2))[0][1],
    ),
    "ROC-AUC, all scores equal": (
        lambda: metrics.roc_auc_score([0, 1, 1], ones[:3]),
        lambda: roc_auc([0, 1, 1], ones[:3]),
    ),
    "log loss, truth given 0": (
        lambda: metrics.log_loss([1, 0], [[1, 0], [1, 0]]),
        lambda: log_loss([1, 0], [[1, 0], [1, 0]]),
    ),
    "accuracy, no samples": (
        lambda: metrics.accuracy_score([], []),
        lambda: confusion([], [], 2).trace(),
    ),
}
for name, (theirs, ours) in cases.items():
    print(f"{name}\n  scikit-learn {ask(theirs)}\n  ours         {ask(ours)}")
# --8<-- [end:degenerate]

# --8<-- [start:averages]
rows = np.flatnonzero((test.y == 1) | (np.arange(10000) % 10 == 0))  # (1)!
skewed = confusion(test.y[rows], answer[rows], 10)
print("samples of each class:", skewed.sum(axis=1))
for average in ("micro", "macro", "weighted"):
    print(f"{average:8} F1 {precision_recall_f1(skewed, average).f1:.2f}")
# --8<-- [end:averages]


# --8<-- [start:areas]
def trapezoid(y, scores):
    precision, recall, _ = precision_recall(y, scores)
    return np.trapezoid(np.append(1, precision), np.append(0, recall))  # (1)!


p = softmax(logits)[few, 6]
for name, scores in (
    ("probabilities", p),
    ("one decimal", p.round(1)),
    ("all equal", np.zeros(len(p))),
):
    average = average_precision(shirt, scores)
    print(f"{name:13}  average precision {average:.2f}", end="")
    print(f"  trapezoids {trapezoid(shirt, scores):.2f}")
# --8<-- [end:areas]

# --8<-- [start:few]
sure = softmax(logits / temperature).max(axis=1)
rng = np.random.default_rng(0)
for samples in (50, 200, 1000, 10000):
    errors = []
    for _ in range(200):
        said = rng.choice(sure, samples)
        right = rng.random(samples) < said  # (1)!
        errors.append(calibration_error(right, said))
    print(f"{samples:6} samples: {np.mean(errors):.3f}")
# --8<-- [end:few]

# --8<-- [start:coverage]
from scipy.stats import binom


def normal(k, n):
    half = 1.96 * np.sqrt(k / n * (1 - k / n) / n)
    return k / n - half, k / n + half


def resample(k, n):
    return binom.ppf([0.025, 0.975], n, k / n) / n  # (1)!


print("accuracy 0.95         n = 20   n = 50  n = 200 n = 1000")
for name, interval in (
    ("Wilson", wilson),
    ("bootstrap", resample),
    ("± 1.96 deviations", normal),
):
    print(f"{name:18}", end="")
    for n in (20, 50, 200, 1000):
        covered = 0.0
        for k in range(n + 1):
            weight = binom.pmf(k, n, 0.95)
            if weight > 1e-6:
                low, high = interval(k, n)
                covered += weight * (low <= 0.95 <= high)
        print(f"{covered:9.3f}", end="")
    print()
# --8<-- [end:coverage]

# --8<-- [start:seeds]
gains = []
for seed in range(6):
    right = [
        mlp.forward(ink(test.x), network(width, seed)).argmax(axis=1) == test.y
        for width in (64, 96)
    ]
    low, high = bootstrap(gain, right, np.random.default_rng(seed))
    gains.append(gain(*right))
    print(f"seed {seed}: {gains[-1]:+.3f} ({low:+.3f} to {high:+.3f})")
deviation = np.std(gains, ddof=1)
print(f"mean {np.mean(gains):+.3f}, deviation {deviation:.3f}")
# --8<-- [end:seeds]

# --8<-- [start:solution-pairs]
y, p = cells.y[unseen], sigmoid(predict(x_new, weights, bias))
above = p[y == 1][:, None] - p[y == 0]
wins = np.mean(above > 0) + np.mean(above == 0) / 2
assert np.isclose(wins, roc_auc(y, p))
print("      ROC-AUC  average precision  Brier  log loss")
for name, q in (("p", p), ("p³", p**3)):
    both = np.column_stack([1 - q, q])
    print(
        f"{name:4} {roc_auc(y, q):8.3f} {average_precision(y, q):18.3f}", end=""
    )
    print(f" {brier(y, q):6.3f} {log_loss(y, both):9.3f}")
# --8<-- [end:solution-pairs]

# --8<-- [start:solution-yes]
for share in (0.1, 0.5, 0.9):
    y = (np.arange(1000) < 1000 * share).astype(int)
    yes = precision_recall_f1(confusion(y, np.ones(1000), 2), empty=0)
    assert np.isclose(yes.f1[1], 2 * share / (1 + share))
    print(f"{share:.0%} positive: F1 {yes.f1[1]:.2f}", end="")
    print(f", of the other class {yes.f1[0]:.2f}")
# --8<-- [end:solution-yes]

# --8<-- [start:solution-groups]
right = (answer == test.y)[:500]
four = np.repeat(right, 4)  # (1)!
for name, column in (
    ("500 images", right),
    ("2,000 rows", four),
    ("500 groups of 4", four.reshape(500, 4)),  # (2)!
):
    low, high = bootstrap(np.mean, (column,), np.random.default_rng(0))
    print(f"{name:15} {right.mean():.3f} ({low:.3f} to {high:.3f})")
    if name == "2,000 rows":
        narrow = high - low
assert narrow < 0.7 * (high - low)
# --8<-- [end:solution-groups]
