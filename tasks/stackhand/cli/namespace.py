"""The tree of collections, task by task: what `inv -l` lists."""

from __future__ import annotations

import sys

from invoke.collection import Collection

from stackhand.cli import demo, dev, engine, perms, reset, restart, services
from stackhand.cli.misspelt import refuse_first_word
from stackhand.cli.service_tasks import ServiceCollection
from stackhand.settings import defaults

ns = Collection("stackhand")
# Invoke reads the service tasks first when it knows the command line and all tasks.
ns.add_collection(ServiceCollection(services.up, on_read=lambda: refuse_first_word(sys.argv, ns)), default=True)
ns.add_collection(
    Collection(
        "services",
        services.start,
        services.fixes,
        services.status,
        services.wait,
        services.logs,
        services.stop,
        services.graph,
        restart.restart,
        reset.reset,
    )
)
ns.add_collection(Collection("engine", engine.check, engine.install))
ns.add_collection(Collection("perms", perms.check, perms.fix, perms.undo))
ns.add_task(demo.demo)
ns.add_task(dev.test)
ns.configure({"stackhand": defaults()})
