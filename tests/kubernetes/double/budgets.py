"""What disruption budgets say to the eviction of a pod, as the API server and its disruption controller have it."""

from __future__ import annotations

from tests.kubernetes.double.errors import ApiError
from tests.kubernetes.double.objects import Object, Objects, controller_of
from tests.kubernetes.double.selectors import of_object


def expect_evictable(objects: Objects, pod: Object) -> None:
    """Raise the server's refusal where a budget forbids the eviction; what is not running is never protected."""
    if pod["status"].get("phase") != "Running" or pod["metadata"].get("deletionTimestamp"):
        return
    namespace = pod["metadata"]["namespace"]
    budgets = [each for each in objects.all("poddisruptionbudgets", namespace) if _selects(each, pod)]
    if len(budgets) > 1:
        why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise ApiError(500, "InternalError", why)
    for budget in budgets:
        selected = [each for each in objects.all("pods", namespace) if _selects(budget, each)]
        _expect_room(budget, [each for each in selected if _healthy(each)], selected)


def _expect_room(budget: Object, healthy: list[Object], selected: list[Object]) -> None:
    spec = budget["spec"]
    if isinstance(spec.get("minAvailable"), int):
        needed = spec["minAvailable"]
    elif isinstance(spec.get("maxUnavailable"), int) and all(map(controller_of, selected)):
        needed = len(selected) - spec["maxUnavailable"]
    else:
        needed = len(healthy)  # how many there should be is not known of pods without a controller: none may go
    if len(healthy) - 1 < needed:
        name = budget["metadata"]["name"]
        cause = f"The disruption budget {name} needs {needed} healthy pods and has {len(healthy)} currently"
        raise ApiError(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
            causes=[{"reason": "DisruptionBudget", "message": cause}],
        )


def _selects(budget: Object, pod: Object) -> bool:
    return of_object(budget["spec"]["selector"])(pod["metadata"].get("labels"))


def _healthy(pod: Object) -> bool:
    return pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp")
