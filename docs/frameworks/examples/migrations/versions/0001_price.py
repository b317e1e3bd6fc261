"""Orders have a price."""

from alembic import op
import sqlalchemy as sa

revision = "0001"
down_revision = None


def upgrade():
    op.add_column("orders", sa.Column("price", sa.Integer))


def downgrade():
    op.drop_column("orders", "price")
