# --8<-- [start:center]
import numpy as np

from aimodels.tokenizer import center

x = np.array([[1.0, 10.0], [3.0, 30.0]])
print(center(x))  # (1)!
# --8<-- [end:center]

# --8<-- [start:picture]
import matplotlib.pyplot as plt

figure, axes = plt.subplots()
axes.plot(*center(x).T, "o-")
axes.set_xlabel("first column")
# --8<-- [end:picture]

# --8<-- [start:check]
difference = np.abs(center(x) - (x - np.mean(x, axis=0))).max()
print(f"largest difference: {difference:.1f}")
# --8<-- [end:check]

# --8<-- [start:solution-twice]
assert np.array_equal(center(center(x)), center(x))
# --8<-- [end:solution-twice]
