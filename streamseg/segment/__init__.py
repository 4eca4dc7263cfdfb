"""Picture in, `Segmentation` out."""

from streamseg.segment.load import Segmenter, load_segmenter
from streamseg.segment.result import ClassMap, InstanceMask, Instances, Matte, Segmentation

__all__ = ["ClassMap", "InstanceMask", "Instances", "Matte", "Segmentation", "Segmenter", "load_segmenter"]
