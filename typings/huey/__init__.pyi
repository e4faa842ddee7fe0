from huey.api import Huey as Huey
