"""What may be wrong on the way to the server: name, port, encryption, token."""

import datetime
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import trustme

from teg.simulator.thingsboard.tls import ServerTls
from tests.support.planted_faults.site import Site, fault
from tests.support.running import CLOSED_PORT


@fault(r"✗ access token: the server does not know this access token \(CONNACK 5\)")
def wrong_token(site: Site) -> None:
    site.gateway.token_path.write_text("ANOTHER-TOKEN")


@fault(r"✗ access token: there is no .*/token → put the device's token into .*/token, or set")
def no_token(site: Site) -> None:
    site.gateway.token_path.unlink()


@fault(r"✗ access token: token file .* does not hold one access token → put")
def two_lines_in_the_token_file(site: Site) -> None:
    site.gateway.token_path.write_text("T1\nT2\n")


@fault(
    r"✗ server encryption: the server's certificate is signed by an authority that this device does not trust → THING"
)
def wrong_ca(site: Site) -> None:
    trustme.CA().cert_pem.write_to_path(site.directory / "other.pem")
    site.environment["THINGSBOARD_CA_CERT"] = str(site.directory / "other.pem")


@fault(r"✗ server encryption: the server's certificate has expired → renew it on the server")
def expired_certificate(site: Site) -> None:
    site.serve(ServerTls.create(site.directory / "tls", expired=True))


@fault(r"✗ server encryption: the server's certificate is not valid yet → this device's clock is behind; set the clock")
def clock_behind(site: Site) -> None:
    """As seen from a device whose clock stands in 1970: everything is from the future."""
    authority, now = trustme.CA(), datetime.datetime.now(datetime.UTC)
    tomorrow, later = now + datetime.timedelta(days=1), now + datetime.timedelta(days=9)
    tls = ServerTls.create(site.directory / "tls")
    issued = authority.issue_cert("localhost", not_before=tomorrow, not_after=later)
    authority.cert_pem.write_to_path(tls.ca_file)
    issued.private_key_pem.write_to_path(tls.key_file)
    issued.cert_chain_pems[0].write_to_path(tls.certificate_file)
    site.serve(tls)


@fault(r"✗ server encryption: the server's certificate is for another name → TB_HOST has to be")
def another_name_than_in_the_certificate(site: Site) -> None:
    site.serve(ServerTls.create(site.directory / "tls", ["things.example.org"]))


@fault(r"✗ server encryption: port \d+ speaks TLS, and TB_TLS is off → set TB_TLS=on")
def plain_against_tls(site: Site) -> None:
    site.environment["TB_TLS"] = "off"


@fault(r"✗ server encryption: port \d+ speaks plain MQTT, and TB_TLS is on → use the TLS port")
def tls_against_plain(site: Site) -> None:
    site.serve(None)


@fault(r"✗ server port: localhost:\d+ cannot be reached: Connection refused → check TB_PORT")
def closed_port(site: Site) -> None:
    site.environment["TB_PORT"] = str(CLOSED_PORT)


@fault(r"✗ server name: 'no-such-server.invalid' cannot be resolved: .* → check TB_HOST, the network")
def unknown_host(site: Site) -> None:
    site.environment["TB_HOST"] = "no-such-server.invalid"


@contextmanager
def talking(greeting: bytes) -> Iterator[int]:
    """A port where something else listens: it waits for a word, says `greeting` and closes; or says nothing at all."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(20)
            with suppress(OSError):
                while self.request.recv(1000) and not greeting:
                    pass
                self.request.sendall(greeting)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, block_on_close = True, False

    with Server(("127.0.0.1", 0), Handler) as place:
        thread = threading.Thread(target=place.serve_forever, daemon=True)
        thread.start()
        yield int(place.server_address[1])
        place.shutdown()
        thread.join()


PORTAL = b"HTTP/1.1 302 Found\r\nLocation: http://hotel.example/login\r\nConnection: close\r\n\r\n"


@fault(r"✗ server encryption: port \d+ answers as a web server: a portal that wants a login, or a wrong TB_PORT → ")
def captive_portal_without_tls(site: Site) -> None:
    site.environment |= {"TB_TLS": "off", "TB_PORT": str(site.stack.enter_context(talking(PORTAL)))}


@fault(r"✗ server encryption: port \d+ answers as a web server: a portal that wants a login, or a wrong TB_PORT → ")
def captive_portal_in_place_of_tls(site: Site) -> None:
    site.environment["TB_PORT"] = str(site.stack.enter_context(talking(PORTAL)))


@fault(r"✗ server encryption: port \d+ says 'SSH-2.0-OpenSSH_9.2p1', which is no MQTT → TB_PORT has to be ")
def port_of_another_service(site: Site) -> None:
    site.environment |= {
        "TB_TLS": "off",
        "TB_PORT": str(site.stack.enter_context(talking(b"SSH-2.0-OpenSSH_9.2p1\r\n"))),
    }


@fault(r"✗ access token: the server says nothing to a login: is there MQTT on port \d+\? → ")
def port_that_swallows_everything(site: Site) -> None:
    site.environment |= {"TB_TLS": "off", "TB_PORT": str(site.stack.enter_context(talking(b"")))}


@fault(r"✗ settings: TB_HOST='https://things.example.org' is not a host name or address: without 'https://'")
def address_of_the_web_page_as_host(site: Site) -> None:
    site.environment["TB_HOST"] = "https://things.example.org"


@fault(r"✗ settings: TB_HOST='localhost:8883' is not a host name or address: the port belongs into TB_PORT")
def port_in_the_host(site: Site) -> None:
    site.environment["TB_HOST"] = "localhost:8883"


@fault(r"✗ server encryption: THINGSBOARD_CA_CERT=.*/ca.pem cannot be used: .* → ")
def certificate_file_that_holds_none(site: Site) -> None:
    (site.directory / "ca.pem").write_text("hello\n")
    site.environment["THINGSBOARD_CA_CERT"] = str(site.directory / "ca.pem")


@fault(r"✗ settings: THINGSBOARD_CA_CERT=.*/nowhere.pem does not exist")
def certificate_file_missing(site: Site) -> None:
    site.environment["THINGSBOARD_CA_CERT"] = str(site.directory / "nowhere.pem")


@fault(r"✗ access token: the token in .*/token stands in quotes → remove them")
def quotes_around_the_token(site: Site) -> None:
    site.gateway.token_path.write_text('"T1"\n')


@fault(r"✗ access token: token file .*/token is empty → put")
def empty_token_file(site: Site) -> None:
    site.gateway.token_path.write_text("\n")


@fault(r"✗ access token: token file .*/token cannot be read: Is a directory → put")
def token_that_is_a_directory(site: Site) -> None:
    site.gateway.token_path.unlink()
    site.gateway.token_path.mkdir()


@fault(r"✗ access token: the server is not available now or limits our connects \(CONNACK 3\) → wait")
def server_that_is_overloaded(site: Site) -> None:
    site.server.faults.connack_codes = [3]
