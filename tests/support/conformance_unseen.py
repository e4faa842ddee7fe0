"""What we know of ThingsBoard and no test of a few minutes can see from outside, with the reason."""

UNSEEN = {
    "a session without any packet is closed after 600 s": "takes ten minutes; TB_TRANSPORT_SESSIONS_INACTIVITY_TIMEOUT",
    "a device is inactive after 600 s": "takes ten minutes; state.defaultInactivityTimeoutInSec",
    "CONNACK 3 when the database or the core is unavailable": "the server's database has to be stopped",
    "an IP address is blocked after 10 bad logins": "off by default (TB_TRANSPORT_IP_RATE_LIMITS_ENABLED)",
    "the 101st packet before the CONNACK closes the session": "a fast server has sent the CONNACK by then",
    "packet ids wrap after 65,535 downlinks of one session": "65,535 calls",
    "X.509 credentials": "needs the server's TLS listener, and its authority to trust ours",
    "RPC ids begin at 0 again after a restart; QUEUED persistent calls come back": "needs a restart in the midst of "
    "calls; TB_TEST_CRASH does the crash of the queue only",
    "an orderly stop loses records, too": "needs a stop under load; seen once on a real 4.2.1",
    "the submit strategies SEQUENTIAL_ON_ACK and SEQUENTIAL_ON_RESPONSE": "a setting of the server "
    "(ACTORS_RPC_SUBMIT_STRATEGY_TYPE)",
    "closing the session when the delivery of a call times out": "off by default "
    "(ACTORS_RPC_CLOSE_SESSION_ON_RPC_DELIVERY_TIMEOUT)",
    "validation failures are acknowledged": "an option of profiles of the transport type MQTT",
    "own topics of a profile": "an option of profiles of the transport type MQTT",
    "the empty chunk of a package whose cache was lost": "the server's cache has to be emptied",
    "no answer to an attribute request when the database fails": "the server's database has to be stopped",
    "keys that are blank, longer than 255 characters, or HTML are dropped after the PUBACK": "depends on the server's "
    "settings; to send them may fill its log",
    "the tenant's own limits, beside those of a device": "every other device of the tenant would be cut off",
    "a URL-less, file-less package is refused": "the REST API's own business",
}
