"""Networks of one's own: any ``nn.Module`` as it is, captured by torch.fx and wired in an executor's words."""

from irnn.capture.explain import Explanation, capture, explain

__all__ = ["Explanation", "capture", "explain"]
