"""What devices can do and cost: peaks of the makers, shares of them that were measured, prices."""

from __future__ import annotations

from dataclasses import dataclass

from gportuguese.plan.schedule import PlanError

GPT2_SMALL_FLOPS = 6 * (12 * 12 * 768**2 + 50257 * 768) + 12 * 12 * 768 * 1024
"""Per training token at 1,024 tokens: six for each weight of a product (12 blocks of 12 * 768^2,
head of 50,257 * 768), and twelve for each layer, column and token of attention."""
# mean over the published recipe's five epochs, in which 12, 8, 4, 0 and 0 blocks stand still
_RECIPE_FLOPS = GPT2_SMALL_FLOPS - 2 * 12 * 768**2 * (12 + 8 + 4) / 5
FP32_SHARE = 0.5
"""Assumed share of the float32 peak: there is no published run of a GPT-2 in float32 to go by."""
CONTEXT_BYTES = 600_000_000
"""Assumed: what CUDA, its libraries and their workspaces take beside the tensors."""
PRICES = "typical of rented cards in 2025, an assumption; --price DEVICE=USD sets another"


@dataclass(frozen=True)
class Device:
    """One kind of card."""

    name: str
    peaks: dict[str, float]
    """Dense matrix products with float32 sums in FLOP/s by precision, as the makers give them; a
    precision that is not here the card cannot do."""
    memory_gb: tuple[int, ...]
    """Sizes it is sold with, of 10^9 bytes: what a card has more is a margin for fragmentation."""
    share: float
    """Of the 16-bit peak, by a published rate of training a GPT-2 small."""
    source: str
    best_share: float
    """The same in hand-written CUDA, where that was published."""
    usd_per_hour: float
    config: str
    """The shipped config for it."""

    def flops_per_second(self, precision: str, best: bool = False) -> float:
        """What training reaches in a precision that the card has."""
        share = self.best_share if best else self.share
        if precision != "fp32":
            return share * self.peaks[precision]
        halves = max(peak for name, peak in self.peaks.items() if name != "fp32")
        return min(FP32_SHARE * self.peaks["fp32"], share * halves)


_NANOGPT = 108e3 * GPT2_SMALL_FLOPS / 312e12
_V100 = 14.7e3 * _RECIPE_FLOPS / 125e12
_H100 = 108e3 * 468 / 218 * GPT2_SMALL_FLOPS / 989e12
DEVICES = (
    Device(
        name="T4",
        peaks={"fp32": 8.1e12, "fp16": 65e12},
        memory_gb=(15,),
        share=_V100,
        source="assumed: a V100's share",
        best_share=_V100,
        usd_per_hour=0.35,
        config="t4",
    ),
    Device(
        name="V100",
        peaks={"fp32": 15.7e12, "fp16": 125e12},
        memory_gb=(16, 32),
        share=_V100,
        source="GPorTuguese-2 itself, 14,700 tokens/s (2020, fastai)",
        best_share=_V100,
        usd_per_hour=0.60,
        config="v100",
    ),
    Device(
        name="A100",
        peaks={"fp32": 19.5e12, "fp16": 312e12, "bf16": 312e12},
        memory_gb=(40, 80),
        share=_NANOGPT,
        source="nanoGPT, 108,000 tokens/s; at best llm.c, 218,000",
        best_share=218e3 * GPT2_SMALL_FLOPS / 312e12,
        usd_per_hour=1.60,
        config="h100",
    ),
    Device(
        name="H100",
        peaks={"fp32": 67e12, "fp16": 989e12, "bf16": 989e12},
        memory_gb=(80,),
        share=_H100,
        source="nanoGPT on an A100 times llm.c's 468 : 218; at best llm.c, 468,000 tokens/s",
        best_share=468e3 * GPT2_SMALL_FLOPS / 989e12,
        usd_per_hour=2.60,
        config="h100",
    ),
    Device(
        name="H200",
        peaks={"fp32": 67e12, "fp16": 989e12, "bf16": 989e12},
        memory_gb=(141,),
        share=_H100,
        source="assumed: an H100's share",
        best_share=468e3 * GPT2_SMALL_FLOPS / 989e12,
        usd_per_hour=3.50,
        config="h100",
    ),
    Device(
        name="RTX4090",
        peaks={"fp32": 82.6e12, "fp16": 165e12, "bf16": 165e12},
        memory_gb=(24,),
        share=_NANOGPT,
        source="assumed: nanoGPT's share of an A100",
        best_share=_NANOGPT,
        usd_per_hour=0.45,
        config="rtx",
    ),
)


def parse_prices(words: list[str]) -> dict[str, float]:
    """US dollars an hour of every device, those of `DEVICE=USD` changed.

    Raises `PlanError` for a device that is not in the table or a price that is none.
    """
    prices = {device.name: device.usd_per_hour for device in DEVICES}
    names = {name.lower(): name for name in prices}
    for word in words:
        name, _, text = word.partition("=")
        try:
            price = float(text)
        except ValueError:
            price = -1.0
        if name.lower() not in names or not 0 <= price < float("inf"):
            raise PlanError(
                f"--price {word}: write DEVICE=USD an hour, such as A100=1.50; devices: "
                + ", ".join(prices)
            )
        prices[names[name.lower()]] = price
    return prices
