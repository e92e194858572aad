from prepare.fixtures import prepared

__all__ = ["prepared"]
