"""Images in, batches out."""

from course_utils.data.loader import Augment, BatchLoader, ImageSet, load_images, split

__all__ = ["Augment", "BatchLoader", "ImageSet", "load_images", "split"]
