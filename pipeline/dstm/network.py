"""D-STM: one network for training and inference."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.dstm.aggregate import soft_aggregate
from pipeline.dstm.aspp import ASPP
from pipeline.dstm.backbone import Backbone
from pipeline.dstm.config import NetworkConfig, Switches
from pipeline.dstm.decoder import Decoder, Skip
from pipeline.dstm.encoders import KeyValue, MemoryEncoder, QueryEncoder
from pipeline.dstm.memory import Memory, read_memory, stack_slots
from pipeline.dstm.objects import Objects

_PAD_TO = 16


class Query(NamedTuple):
    """What a frame offers to the read and the decoder; independent of masks.

    Attributes:
        key: B,Ck,h,w.
        value: B,Cv,h,w.
        skip8: B,C,H/8,W/8.
        skip4: B,C,H/4,W/4.
        height: rows before padding.
        width: columns before padding.
    """

    key: Tensor
    value: Tensor
    skip8: Tensor
    skip4: Tensor
    height: int
    width: int


class Unrolled(NamedTuple):
    """Outcome of a training clip.

    Attributes:
        logits: B,T-1,K+1,H,W for frames 2..T.
        carried: B,T-1,K,h,w in [0, 1], the memory's masks carried through the attention; None unless `value_mask`.
    """

    logits: Tensor
    carried: Tensor | None


class DSTM(nn.Module):
    """The depth-aware space-time memory network (Figure 1).

    Args:
        switches: the columns of Table 2 that change the network.
        config: sizes and open choices.
        awaits_weights: weights of a checkpoint are loaded next: ImageNet's are not read, and `norm: frozen` is allowed
            without them.

    Raises:
        UserError: the backbone does not fit, its weights are not there, or the switches do not fit the configuration.
    """

    def __init__(self, switches: Switches, config: NetworkConfig, awaits_weights: bool = False) -> None:
        super().__init__()
        self.switches = switches
        self.config = config
        name = config.backbone(switches)
        self.query_encoder = QueryEncoder(Backbone(name, config, awaits_weights), switches.depth)
        self.memory_encoder = MemoryEncoder(Backbone(name, config, awaits_weights), switches.depth)
        c4, c8, c16 = self.query_encoder.backbone.channels
        self.query_heads = KeyValue(c16, config.key_channels, config.value_channels)
        self.memory_heads = KeyValue(c16, config.key_channels, config.value_channels)
        readout, channels = 2 * config.value_channels + 2 * config.value_mask, config.decoder_channels
        self.aspp = (
            ASPP(readout, channels, config.aspp_dilations) if switches.aspp else nn.Conv2d(readout, channels, 3, 1, 1)
        )
        self.skip8, self.skip4 = Skip(c8, channels), Skip(c4, channels)
        self.decoder = Decoder(channels)
        if config.shared_start:
            self.memory_encoder.backbone.load_state_dict(self.query_encoder.backbone.state_dict())
            self.memory_heads.load_state_dict(self.query_heads.state_dict())

    def encode_query(self, frames: Tensor, depth: Tensor | None) -> Query:
        """Encode frames that are to be segmented.

        Args:
            frames: B,3,H,W in [0, 1]; any H, W.
            depth: B,1,H,W normalised inverse depth in [0, 1]; ignored without `model.depth`.

        Returns:
            The query of each frame.
        """
        _, _, height, width = frames.shape
        feat4, feat8, feat16 = self.query_encoder(_pad(frames), _pad_depth(depth, self.switches.depth))
        key, value = self.query_heads(feat16)
        return Query(key, value, self.skip8(feat8), self.skip4(feat4), height, width)

    def memorize(
        self,
        frames: Tensor,
        depth: Tensor | None,
        masks: Tensor,
        objects: Tensor | Objects | None = None,
        batch: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Make one memory slot of each frame.

        Args:
            frames: B,3,H,W in [0, 1].
            depth: B,1,H,W in [0, 1]; ignored without `model.depth`.
            masks: B,K+1,H,W probabilities, background at index 0.
            objects: B,K bool, which object slots are in use; all if None. Unused slots stay zero.
            batch: objects encoded at a time, which bounds the features held; all at once if None.

        Returns:
            mem_key B,K,Ck,h,w and mem_value B,K,Cv,h,w.
        """
        objects = _objects(masks.shape[0], masks.shape[1] - 1, objects)
        foreground = objects.spread(objects.pick(_pad(masks[:, 1:])))  # zero in unused slots
        union = foreground.sum(dim=1, keepdim=True)
        padded, padded_depth = _pad(frames), _pad_depth(depth, self.switches.depth)
        pairs = []
        for part in objects.parts(batch):
            mask = part.pick(foreground)[:, None]
            others = (part.of_video(union) - mask).clamp(0, 1)
            pairs.append(self.encode_memory(padded, padded_depth, mask, others, part))
        keys, values = (_joined(list(tensors)) for tensors in zip(*pairs))
        return objects.spread(keys), objects.spread(values)

    def encode_memory(
        self, frames: Tensor, depth: Tensor | None, mask: Tensor, others: Tensor, objects: Objects | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode N objects for the memory.

        Args:
            frames: B,3,H,W in [0, 1]; sides multiples of 16.
            depth: B,1,H,W in [0, 1]; None without `model.depth`.
            mask: N,1,H,W probability of each object.
            others: N,1,H,W probability of the union of the other objects.
            objects: the videos of the N objects; None if B is 1 (all in one video) or N.

        Returns:
            Key N,Ck,h,w and value N,Cv,h,w.
        """
        key, value = self.memory_heads(self.memory_encoder(frames, depth, mask, others, objects))
        if self.config.value_mask:
            small = F.adaptive_avg_pool2d(torch.cat([mask, others], dim=1).float(), value.shape[-2:])
            value = torch.cat([value, small.to(value.dtype)], dim=1)
        return key, value

    def segment(
        self,
        query: Query,
        memory: Memory,
        objects: Tensor | None = None,
        chunk: int | None = None,
        batch: int | None = None,
    ) -> Tensor:
        """Segment the queried frames by what the memory holds.

        Args:
            query: B frames.
            memory: T slots of the same B videos.
            objects: B,K bool, which object slots are in use; all if None.
            chunk: query pixels read at a time (see `read_memory`).
            batch: objects segmented at a time, which bounds the features held; all at once if None.

        Returns:
            B,K+1,H,W float32 logits; softmax over dim 1 gives probabilities.
        """
        which = _objects(memory.key.shape[0], memory.key.shape[1], objects)
        return self._segment(query, memory, which, objects, chunk, batch)[0]

    def _segment(
        self,
        query: Query,
        memory: Memory,
        objects: Objects,
        used: Tensor | None,
        chunk: int | None = None,
        batch: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        every_odds, masks_read = [], []
        for part in objects.parts(batch):
            mem_key, mem_value = (part.pick(x) for x in memory)
            read = read_memory(part.of_video(query.key), mem_key, mem_value, self.config.scale_keys, chunk)
            readout = torch.cat([part.of_video(query.value), read], dim=1)  # f_t of Eq. (1): N,2Cv,h,w
            skip8, skip4 = part.shared(query.skip8), part.shared(query.skip4)
            every_odds.append(self.decoder(self.aspp(readout), skip8, skip4)[:, 0])  # N,H,W padded
            masks_read += [read[:, -2]] if self.config.value_mask else []
        odds = objects.spread(_joined(every_odds))
        logits = soft_aggregate(_crop(odds, query.height, query.width), used)
        carried = objects.spread(_joined(masks_read)) if self.config.value_mask else None
        return logits, carried

    def forward(self, frames: Tensor, depth: Tensor | None, masks: Tensor, objects: Tensor) -> Unrolled:
        """Unroll a training clip: frame 1 is memorized with its true mask, later ones with their predictions.

        Args:
            frames: B,T,3,H,W in [0, 1].
            depth: B,T,1,H,W in [0, 1].
            masks: B,K+1,H,W, the first frame's true masks.
            objects: B,K bool, on the CPU or the device; on the CPU nothing waits for the device.

        Returns:
            Logits of frames 2..T and the masks carried by the attention.
        """
        t = frames.shape[1]
        which, used = Objects(objects.shape[0], objects.shape[1], objects), objects.to(frames.device)
        queries = self._encode_queries(frames, depth)
        slots = [self.memorize(frames[:, 0], None if depth is None else depth[:, 0], masks, which)]
        logits, carried = [], []
        for i in range(1, t):
            frame_logits, frame_carried = self._segment(queries[i - 1], stack_slots(slots), which, used)
            logits.append(frame_logits)
            carried.append(frame_carried)
            if i + 1 < t:
                frame_depth = None if depth is None else depth[:, i]
                slots.append(self.memorize(frames[:, i], frame_depth, frame_logits.softmax(dim=1), which))
        stacked = [c for c in carried if c is not None]
        return Unrolled(torch.stack(logits, dim=1), torch.stack(stacked, dim=1) if stacked else None)

    def _encode_queries(self, frames: Tensor, depth: Tensor | None) -> list[Query]:
        """Queries of frames 2..T of B,T,3,H,W and B,T,1,H,W: they do not depend on masks, so all pass together.

        With BatchNorm in training mode, whose statistics are those of one frame of each video, they pass one by one.
        """
        b, t = frames.shape[:2]
        if self.config.norm == "batch" and self.training:
            every = range(1, t)
            return [self.encode_query(frames[:, i], None if depth is None else depth[:, i]) for i in every]
        later = frames[:, 1:].transpose(0, 1).flatten(0, 1)  # frame after frame, each of all videos
        later_depth = None if depth is None else depth[:, 1:].transpose(0, 1).flatten(0, 1)
        together = self.encode_query(later.contiguous(memory_format=torch.channels_last), later_depth)
        parts = zip(*(x.split(b) for x in (together.key, together.value, together.skip8, together.skip4)))
        return [Query(key, value, s8, s4, together.height, together.width) for key, value, s8, s4 in parts]

    @torch.no_grad()
    def calibrate_keys(self, frames: Tensor, depth: Tensor | None, masks: Tensor, objects: Tensor) -> None:
        """Scale both key heads so that keys have the standard deviation `key_std` on these frames (0: leave them).

        Args:
            frames: B,3,H,W.
            depth: B,1,H,W.
            masks: B,K+1,H,W.
            objects: B,K bool.
        """
        if self.config.key_std == 0:
            return
        self.query_heads.scale_key(self.config.key_std / float(self.encode_query(frames, depth).key.float().std()))
        mem_key = self.memorize(frames, depth, masks, objects)[0]
        self.memory_heads.scale_key(self.config.key_std / float(mem_key[objects].float().std()))


def _margins(height: int, width: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom padding to the next multiple of 16, split evenly as STM does."""
    rows, columns = -height % _PAD_TO, -width % _PAD_TO
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def _pad(x: Tensor) -> Tensor:
    margins = _margins(*x.shape[-2:])
    return F.pad(x, margins) if any(margins) else x


def _crop(x: Tensor, height: int, width: int) -> Tensor:
    left, _, top, _ = _margins(height, width)
    return x[..., top : top + height, left : left + width]


def _pad_depth(depth: Tensor | None, used: bool) -> Tensor | None:
    if not used:
        return None
    if depth is None:
        raise ValueError("the network takes depth (model.depth), but none was given")
    return _pad(depth)


def _objects(videos: int, slots: int, objects: Tensor | Objects | None) -> Objects:
    return objects if isinstance(objects, Objects) else Objects(videos, slots, objects)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
