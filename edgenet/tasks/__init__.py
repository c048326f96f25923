"""What a network is asked: one class of several, yes or no, several labels at once, or how alike two pictures are."""

from edgenet.tasks.task import AUTO, CLASSES, KINDS, Task, told_from

__all__ = ["AUTO", "CLASSES", "KINDS", "Task", "told_from"]
