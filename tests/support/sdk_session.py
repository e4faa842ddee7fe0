"""ThingsBoard's Python SDK (tb-mqtt-client) as a device, run by `.venv-clients/bin/python`: its paho is not ours.

    sdk_session.py HOST PORT TOKEN

It writes a firmware that it got into its directory, under the title of the package. Each line in is a JSON list, an
action and its arguments; each line out is a JSON object: what was done, or what came.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from tb_device_mqtt import TBDeviceMqttClient

CHUNK_BYTES = 1000


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def main(host: str, port: str, token: str) -> None:
    client = TBDeviceMqttClient(host, int(port), token, chunk_size=CHUNK_BYTES)
    client.set_server_side_rpc_request_handler(lambda number, body: answer(client, number, body))
    client.connect()
    for line in sys.stdin:
        action, *arguments = json.loads(line)
        actions(client)[action](*arguments)
    client.disconnect()
    client.stop()


def actions(client: Any) -> Mapping[str, Callable[..., object]]:
    return {
        "telemetry": lambda records: say(telemetry=client.send_telemetry(records).get()),
        "attributes": lambda values: say(attributes=client.send_attributes(values).get()),
        "watch": lambda: client.subscribe_to_all_attributes(lambda changed, *_: say(pushed=changed)),
        "request": lambda *keys: client.request_attributes(*keys, callback=lambda found, *_: say(found=found)),
        "runs": lambda title, version: client.current_firmware_info.update(
            current_fw_title=title, current_fw_version=version
        ),
        "update": client.get_firmware_update,
    }


def answer(client: Any, number: int, body: Mapping[str, Any]) -> None:
    say(called=body)
    client.send_rpc_reply(number, {"echo": body["params"]})


if __name__ == "__main__":
    main(*sys.argv[1:])
