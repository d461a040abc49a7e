"""3x3 convolutions of many channels for inference on a CPU, with less than half of the multiplications."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.core.kernels.onednn import product

LEAST_CHANNELS = 256  # with fewer, the sums cost more than the multiplications they save
_ROWS = 8  # rows of tiles processed at a time, so that their data stays in the caches

# Y = At ((G g Gt) * (Bt d B)) A for each tile of 2x2 outputs, with Bt and At written as sums below.
_G = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64)


def suits(conv: nn.Conv2d, dtype: torch.dtype) -> bool:
    """Whether a convolution can be computed this way and is then faster."""
    plain = (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
    many = min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS
    on_cpu = conv.weight.device.type == "cpu" and dtype in (torch.float32, torch.bfloat16)
    return plain and many and on_cpu and conv.groups == 1 and conv.padding_mode == "zeros"


class WinogradConv(nn.Module):
    """A 3x3 convolution by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, CVPR 2016, equation 8).

    Exact in exact arithmetic. In float32 it is as accurate as the direct sum; in bfloat16 its error is about 2.5 times
    that of a direct convolution, whose sums are all float32.

    Args:
        conv: 3x3, stride 1, padding 1.
        dtype: of the arithmetic and of the output.
        relu: rectify the output.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.out_channels = conv.out_channels
        kernel = conv.weight.detach().double().cpu()
        transformed = torch.einsum("ai,ocij,bj->aboc", _G, kernel, _G).flatten(0, 1)  # 16,O,C
        self.kernel: Tensor
        self.register_buffer("kernel", transformed.to(dtype).contiguous(), persistent=False)
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        self.bias: Tensor
        self.register_buffer("bias", bias.to(dtype), persistent=False)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Map N,C,H,W of any float type to N,C',H,W: relu(conv(x) + add).

        Args:
            x: input, fastest in channels-last layout.
            add: of the output's shape and type.
        """
        x = x.to(self.kernel.dtype).permute(0, 2, 3, 1)  # N,H,W,C
        n, height, width, _ = x.shape
        y = x.new_empty(n, height, width, self.out_channels)

        def compute(i: int, top: int) -> None:
            rows = slice(top, min(height, top + 2 * _ROWS))
            part = self._part(x[i], rows)
            if add is not None:
                part += add[i, :, rows].permute(1, 2, 0)
            y[i, rows] = part.relu_() if self.relu else part

        _run_all(compute, [(i, top) for i in range(n) for top in range(0, height, 2 * _ROWS)])
        return y.permute(0, 3, 1, 2)

    def _part(self, x: Tensor, rows: slice) -> Tensor:
        """Some rows H',W,O of the output, starting at an even row, from the input H,W,C."""
        height, width, _ = x.shape
        tall, wide = -(-(rows.stop - rows.start) // 2), -(-width // 2)  # tiles
        first, last = max(0, rows.start - 1), min(height, rows.start + 2 * tall + 1)
        margins = (0, 0, 1, 2 * wide - width + 1, first - rows.start + 1, rows.start + 2 * tall + 1 - last)
        padded = F.pad(x[first:last], margins)  # 2 tall + 2, 2 wide + 2, C
        down = _input_sums([padded[j : j + 2 * tall - 1 : 2] for j in range(4)])
        planes = x.new_empty(4, 4, tall, wide, x.shape[2])
        for a, of_row in enumerate(down):
            _input_sums([of_row[:, j : j + 2 * wide - 1 : 2] for j in range(4)], planes[a])
        tiles = self._products(planes.view(16, tall * wide, -1)).view(4, 4, tall, wide, -1)
        result = x.new_empty(2 * tall, 2 * wide, self.out_channels)
        for a, of_row in enumerate(_output_sums(tiles)):
            for b, sums in enumerate(_output_sums(of_row)):
                torch.add(sums, self.bias, out=result[a::2, b::2])
        return result[: rows.stop - rows.start, :width]

    def _products(self, planes: Tensor) -> Tensor:
        """16,P,C times 16,O,C to 16,P,O."""
        if planes.dtype == torch.bfloat16:
            return planes @ self.kernel.transpose(1, 2)
        return torch.cat([product(planes[j : j + 1], self.kernel[j : j + 1]) for j in range(16)])


def _run_all(compute: Callable[[int, int], None], parts: list[tuple[int, int]]) -> None:
    """Compute parts in parallel, one per core: single operations are too small to be split over cores."""
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) == 1:
        for part in parts:
            compute(*part)
        return

    def on_one_core(part: tuple[int, int]) -> None:
        with torch.inference_mode():  # the mode is set per thread
            compute(*part)

    for done in [_pool(threads).submit(on_one_core, part) for part in parts]:
        done.result()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "winograd", torch.set_num_threads, (1,))


def _input_sums(d: list[Tensor], out: Tensor | None = None) -> Tensor:
    """Bt d, the four rows stacked."""
    out = d[0].new_empty(4, *d[0].shape) if out is None else out
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])
    return out


def _output_sums(m: Tensor) -> tuple[Tensor, Tensor]:
    """At m, over the first dimension."""
    return (m[0] + m[1]).add_(m[2]), (m[1] - m[2]).sub_(m[3])
