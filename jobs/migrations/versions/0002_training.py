"""Training, hosts and gangs, checkpoints, the model registry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_models_project_id")),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_models")),
    )
    op.create_table(
        "model_versions",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("base", sa.Text(), nullable=True),
        sa.Column("files", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column(
            "metrics", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False
        ),
        sa.Column(
            "lineage", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False
        ),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('full', 'adapter')", name=op.f("ck_model_versions_kind")),
        sa.CheckConstraint("version > 0", name=op.f("ck_model_versions_version_positive")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_model_versions_job_id")),
        sa.ForeignKeyConstraint(
            ["project_id", "name"],
            ["models.project_id", "models.name"],
            name="fk_model_versions_model",
        ),
        sa.PrimaryKeyConstraint("project_id", "name", "version", name=op.f("pk_model_versions")),
    )
    op.create_table(
        "model_aliases",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column(
            "moved_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "name", "version"],
            ["model_versions.project_id", "model_versions.name", "model_versions.version"],
            name="fk_model_aliases_version",
        ),
        sa.PrimaryKeyConstraint("project_id", "name", "alias", name=op.f("pk_model_aliases")),
    )
    op.create_table(
        "promotions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("incumbent", sa.Integer(), nullable=True),
        sa.Column("incumbent_value", sa.Double(), nullable=True),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("margin", sa.Double(), nullable=False),
        sa.Column("promoted", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint(
            "(incumbent IS NULL) = (incumbent_value IS NULL)",
            name=op.f("ck_promotions_incumbent_whole"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_promotions_job_id")),
        sa.ForeignKeyConstraint(
            ["project_id", "name", "version"],
            ["model_versions.project_id", "model_versions.name", "model_versions.version"],
            name="fk_promotions_version",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "forming",
                "running",
                "succeeded",
                "failed",
                "lost",
                "preempted",
                name="runstate",
                native_enum=False,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("machines", sa.Integer(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("checkpoint_id", sa.BigInteger(), nullable=True),
        sa.Column("stop", sa.Text(), nullable=True),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("step", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("steps_total", sa.BigInteger(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("failing_rank", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "(state IN ('forming', 'running')) = (finished_at IS NULL)",
            name=op.f("ck_runs_finished_iff_final"),
        ),
        sa.CheckConstraint(
            "state IN ('forming', 'running', 'succeeded', 'failed', 'lost', 'preempted')",
            name=op.f("ck_runs_state"),
        ),
        sa.CheckConstraint("stop IN ('checkpoint', 'now')", name=op.f("ck_runs_stop")),
        sa.CheckConstraint(
            "(stop IS NULL) = (stop_reason IS NULL)", name=op.f("ck_runs_stop_whole")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_runs_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("job_id", "number", name=op.f("uq_runs_job_id_number")),
    )
    op.create_table(
        "hosts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("shares_pool", sa.Text(), nullable=True),
        sa.Column("sharing", sa.Text(), nullable=True),
        sa.Column("draining", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "sharing IN ('beside', 'yield', 'refuse')", name=op.f("ck_hosts_sharing")
        ),
        sa.CheckConstraint(
            "(shares_pool IS NULL) = (sharing IS NULL)", name=op.f("ck_hosts_sharing_whole")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_hosts")),
    )
    op.create_table(
        "ranks",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("pending", "leased", "ended", name="rankstate", native_enum=False, length=20),
            server_default=sa.text("'pending'"),
            nullable=False,
        ),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("phase", sa.Text(), nullable=True),
        sa.Column("progress_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'ended') = (outcome IS NOT NULL AND ended_at IS NOT NULL)",
            name=op.f("ck_ranks_ended_iff_outcome"),
        ),
        sa.CheckConstraint(
            "(state = 'leased') = (lease_expires_at IS NOT NULL)",
            name=op.f("ck_ranks_leased_iff_lease"),
        ),
        sa.CheckConstraint("state IN ('pending', 'leased', 'ended')", name=op.f("ck_ranks_state")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_ranks_run_id")),
        sa.PrimaryKeyConstraint("run_id", "rank", name=op.f("pk_ranks")),
    )
    op.create_table(
        "checkpoint_parts",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("files", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_checkpoint_parts_run_id")),
        sa.PrimaryKeyConstraint("run_id", "step", "rank", name=op.f("pk_checkpoint_parts")),
    )
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("metric", sa.Double(), nullable=True),
        sa.Column("best", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("manifest_key", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("damaged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_checkpoints_job_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_checkpoints_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
        sa.UniqueConstraint("run_id", "step", name=op.f("uq_checkpoints_run_id_step")),
    )
    op.create_table(
        "points",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("run_number", sa.Integer(), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_points_job_id")),
        sa.PrimaryKeyConstraint("job_id", "name", "step", name=op.f("pk_points")),
    )
    op.create_table(
        "log_lines",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("run_number", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_log_lines_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_lines")),
    )
    op.create_index(op.f("ix_hosts_pool"), "hosts", ["pool"], unique=False)
    op.create_index(op.f("ix_log_lines_job_id_id"), "log_lines", ["job_id", "id"], unique=False)
    op.create_index(op.f("ix_model_versions_job_id"), "model_versions", ["job_id"], unique=True)
    op.create_index(
        "uq_runs_live_job",
        "runs",
        ["job_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('forming', 'running')"),
    )
    op.create_index("ix_checkpoints_job", "checkpoints", ["job_id", "step"], unique=False)
    op.create_index(
        op.f("ix_promotions_project_id_name_id"),
        "promotions",
        ["project_id", "name", "id"],
        unique=False,
    )
    op.create_index(
        "ix_ranks_live",
        "ranks",
        ["host"],
        unique=False,
        postgresql_where=sa.text("state <> 'ended'"),
    )
    op.add_column("jobs", sa.Column("model_pinned", sa.Text(), nullable=True))
    op.add_column(
        "jobs",
        sa.Column(
            "dataset", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
    )
    op.add_column(
        "jobs", sa.Column("faults", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column(
        "jobs", sa.Column("errors", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("jobs", sa.Column("not_before", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("run_error", sa.Text(), nullable=True))
    op.add_column(
        "shards", sa.Column("split", sa.Text(), server_default=sa.text("'rows'"), nullable=False)
    )
    op.add_column("shards", sa.Column("sha256", sa.Text(), nullable=True))
    op.create_foreign_key(op.f("fk_hosts_run_id"), "hosts", "runs", ["run_id"], ["id"])
    op.create_foreign_key(
        op.f("fk_runs_checkpoint_id"), "runs", "checkpoints", ["checkpoint_id"], ["id"]
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_hosts_run_id"), "hosts", type_="foreignkey")
    op.drop_constraint(op.f("fk_runs_checkpoint_id"), "runs", type_="foreignkey")
    op.drop_column("shards", "sha256")
    op.drop_column("shards", "split")
    op.drop_column("jobs", "run_error")
    op.drop_column("jobs", "not_before")
    op.drop_column("jobs", "errors")
    op.drop_column("jobs", "faults")
    op.drop_column("jobs", "dataset")
    op.drop_column("jobs", "model_pinned")
    op.drop_table("log_lines")
    op.drop_table("points")
    op.drop_table("checkpoints")
    op.drop_table("checkpoint_parts")
    op.drop_table("ranks")
    op.drop_table("hosts")
    op.drop_table("runs")
    op.drop_table("promotions")
    op.drop_table("model_aliases")
    op.drop_table("model_versions")
    op.drop_table("models")
