"""The tables of the ledger, each field explained: what it means, who writes it, what null means."""

from jobs.tables.audit import AuditEntry
from jobs.tables.base import Base, Json
from jobs.tables.broker import MessageKey, RefusedMessage
from jobs.tables.bulk import (
    Chunk,
    ControlStatus,
    Event,
    Job,
    ResultRow,
    Shard,
    Worker,
)
from jobs.tables.chunk_folds import ChunkFold, FoldedDamage
from jobs.tables.creations import Creation
from jobs.tables.dependencies import JobDependency
from jobs.tables.files import File, UnfinishedUpload
from jobs.tables.groups import JobGroup
from jobs.tables.inputs import JobInput
from jobs.tables.orders import Order
from jobs.tables.projects import ApiKey, Project
from jobs.tables.registry import AliasMove, Model, ModelAlias, ModelVersion, Promotion
from jobs.tables.retention import CollectionRound, Removal, StorageUsage
from jobs.tables.schedules import Fire, Schedule, ScheduleVersion
from jobs.tables.training import (
    Checkpoint,
    CheckpointPart,
    Host,
    LogLine,
    Point,
    Rank,
    Run,
)
from jobs.tables.webhooks import (
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    WebhookGroupCheck,
)

__all__ = [
    "AliasMove",
    "ApiKey",
    "AuditEntry",
    "Base",
    "Checkpoint",
    "CheckpointPart",
    "Chunk",
    "ChunkFold",
    "CollectionRound",
    "ControlStatus",
    "Creation",
    "Event",
    "File",
    "Fire",
    "FoldedDamage",
    "Host",
    "Job",
    "JobDependency",
    "JobGroup",
    "JobInput",
    "Json",
    "LogLine",
    "MessageKey",
    "Model",
    "ModelAlias",
    "ModelVersion",
    "Order",
    "Point",
    "Project",
    "Promotion",
    "Rank",
    "RefusedMessage",
    "Removal",
    "ResultRow",
    "Run",
    "Schedule",
    "ScheduleVersion",
    "Shard",
    "StorageUsage",
    "UnfinishedUpload",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookEvent",
    "WebhookGroupCheck",
    "Worker",
]
