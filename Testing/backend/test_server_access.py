"""Who may ask a server what, and what a client takes care of."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
import requests
import trustme
from server_helpers import Server, ball

from aiassist.client import RemoteBackend, RequestsTransport
from aiassist.errors import AccessError, AIAssistError, ConnectionLostError, NotNewestError, UploadError
from aiassist.imaging import MaskPatch
from aiassist.protocol import Reply, Request
from aiassist.protocol.messages import check, study_bytes
from aiassist.protocol.wire import AGAIN
from aiassist.server import sessions as sessions_module
from aiassist.server.sessions import SessionExpired, Sessions
from aiassist.server.tokens import Person, Tokens, add_token, read_tokens, revoke_token

# Who may do what


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with a token file; its people's tokens."""
    file = tmp_path_factory.mktemp("secret") / "tokens.txt"
    tokens = {"ann": add_token(file, "ann", "annotator"), "boss": add_token(file, "boss", "admin")}
    with Server(tmp_path_factory.mktemp("studies"), "--token-file", str(file)) as running:
        running.file, running.tokens = file, tokens
        yield running


def test_only_health_and_the_api_page_are_open_to_all(guarded):
    assert guarded.ask("GET", "/api/health", None).json()["status"] == "ok"
    page = guarded.ask("GET", "/docs", None)
    assert page.status_code == 200 and "http" not in page.text.replace("httptools", "")  # nothing from elsewhere
    assert "/api/annotate" in page.text and "default-src 'none'" in page.headers["content-security-policy"]
    assert guarded.ask("GET", "/auth/", None).json()["enabled"] is True
    assert guarded.ask("POST", "/auth/token", None, data={"password": "wrong"}).status_code == 403


def test_a_route_needs_a_token_exactly_when_the_description_says_so(guarded):
    said = guarded.ask("GET", "/openapi.json", None).json()
    (name, scheme), *others = said["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"], others) == ("http", "bearer", [])
    routes = [(method, path, route) for path, methods in said["paths"].items() for method, route in methods.items()]
    open_to_all = {(method, path) for method, path, route in routes if route["security"] == []}
    assert open_to_all == {("get", "/api/health"), ("get", "/auth/"), ("post", "/auth/token")}
    assert guarded.ask("GET", "/docs", None).text.count("needs no token.</p>") == len(open_to_all)
    assert len(routes) > 40
    for method, path, route in routes:
        answer = guarded.ask(method.upper(), path.replace("{", "").replace("}", ""), None)
        if (method, path) in open_to_all:
            assert answer.status_code != 401, path
        else:
            assert route["security"] == [{name: []}] and answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer") and "401" in route["responses"]


def test_the_author_of_a_label_is_whose_token_it_is(guarded):
    volume, _ = ball(12)
    with guarded.backend(guarded.tokens["ann"]) as backend:
        study = backend.open_study(volume)
        saved = backend.run(backend.conversations.save(study, "ball", MaskPatch.of_mask(volume.voxels > 100)))
    assert saved["author"] == "ann"


def test_only_an_admin_removes_studies_and_reads_the_log(guarded):
    volume, _ = ball(13)
    with guarded.backend(guarded.tokens["ann"]) as backend:
        study = backend.open_study(volume)
    for role, status in (("ann", 403), ("boss", 200)):
        assert guarded.ask("DELETE", f"/api/studies/{study}", guarded.tokens[role]).status_code == status
        assert guarded.ask("GET", "/logs/", guarded.tokens[role]).status_code == status
    assert guarded.ask("HEAD", f"/api/studies/{study}", guarded.tokens["ann"]).status_code == 404


def test_only_an_admin_approves_and_rejects(guarded):
    volume, _ = ball(14)
    with guarded.backend(guarded.tokens["ann"]) as ann, guarded.backend(guarded.tokens["boss"]) as boss:
        study, mask = ann.open_study(volume), MaskPatch.of_mask(volume.voxels > 100)
        ann.run(ann.conversations.save(study, "L5/S1", mask, state="submitted"))
        with pytest.raises(AccessError, match="ann is an annotator; this needs an admin"):
            ann.run(ann.conversations.review(study, "L5/S1", 1, "approved"))
        made = boss.run(boss.conversations.review(study, "L5/S1", 1, "rejected", "Too small"))
        assert [made[key] for key in ("number", "state", "author", "comment")] == [2, "rejected", "boss", "Too small"]
        with pytest.raises(NotNewestError, match="Version 1 is not the newest one"):
            boss.run(boss.conversations.review(study, "L5/S1", 1, "approved"))
        with pytest.raises(AIAssistError, match="state: Input should be 'approved' or 'rejected'"):
            boss.run(boss.conversations.review(study, "L5/S1", 2, "draft"))


@pytest.mark.parametrize(
    ("what", "said"), [("", "no upload of the study"), ("/dicom", "No DICOM headers of the study")]
)
def test_what_is_not_there_is_not_said_to_be_removed(guarded, what, said):
    reply = guarded.ask("DELETE", f"/api/studies/{'0' * 32}{what}", guarded.tokens["boss"])
    assert reply.status_code == 404 and said in reply.json()["message"]
    assert "0" * 32 not in (guarded.studies / "audit.jsonl").read_text(encoding="utf8")


def test_a_client_without_headers_puts_its_token_in_the_path_or_the_password(guarded):
    token = guarded.tokens["ann"]
    assert guarded.ask("GET", f"/t/{token}/api/models", None).status_code == 200
    assert guarded.ask("GET", "/t/wrong/api/models", None).status_code == 401
    assert requests.get(guarded.url + "/api/models", auth=("anybody", token), timeout=9).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/v1/models"),
        ("GET", "/info"),
        ("GET", "/datastore"),
        ("POST", "/activelearning/first"),
        ("GET", "/train"),
        ("GET", "/auth"),
        ("GET", "/auth/token/valid"),
        ("GET", "/api/health"),
        ("GET", "/session/none"),
    ],
)
def test_a_slash_at_the_end_changes_no_answer_and_no_redirect_loses_the_token(guarded, method, path):
    for before in ("", f"/t/{guarded.tokens['ann']}"):
        token = None if before else guarded.tokens["ann"]
        plain, slashed = (
            guarded.ask(method, f"{before}{path}{end}", token, allow_redirects=False) for end in ("", "/")
        )
        assert plain.status_code in (200, 404) and "location" not in plain.headers
        assert (slashed.status_code, slashed.content) == (plain.status_code, plain.content)


def test_a_form_may_be_called_one_in_capitals(guarded):
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.nii"\r\n\r\nabc\r\n--x--\r\n'
    for kind in ("multipart/form-data", "Multipart/Form-Data"):
        answer = guarded.ask(
            "PUT", "/datastore/", guarded.tokens["ann"], data=body, headers={"content-type": f"{kind}; boundary=x"}
        )
        assert answer.status_code == 422 and "The image is not a readable NIfTI file" in answer.json()["message"]


def test_the_log_names_routes_and_people_but_no_path(guarded):
    guarded.ask("GET", "/api/truth/" + "ab" * 16 + "?patient=Mustermann", guarded.tokens["ann"])
    log = guarded.ask("GET", "/logs/", guarded.tokens["boss"]).text
    assert "/truth/{study} 200" in log and " ann" in log
    assert "Mustermann" not in log and "abab" not in log and guarded.tokens["ann"] not in log


def test_wrong_tokens_are_slowed_and_right_ones_are_not(guarded):
    began = time.perf_counter()
    for _ in range(3):
        assert guarded.ask("GET", "/api/models", "wrong").status_code == 401
    assert time.perf_counter() - began > 0.2 + 0.4 + 0.8
    began = time.perf_counter()
    assert guarded.ask("GET", "/api/models", guarded.tokens["ann"]).status_code == 200
    assert time.perf_counter() - began < 1.0


def test_a_revoked_token_is_shut_out_at_once(guarded):
    token = add_token(guarded.file, "temp", "annotator")
    assert guarded.ask("GET", "/api/models", token).status_code == 200
    revoke_token(guarded.file, "temp")
    assert guarded.ask("GET", "/api/models", token).status_code == 401
    assert guarded.ask("GET", "/api/models", guarded.tokens["ann"]).status_code == 200


def test_the_token_file_holds_no_token_and_is_nobody_elses(guarded):
    text = guarded.file.read_text()
    assert all(token not in text for token in guarded.tokens.values()) and "ann annotator" in text
    assert guarded.file.stat().st_mode & 0o077 == 0


def test_a_session_that_is_used_goes_on_and_one_that_is_not_ends():
    now, ann = [0.0], Person("ann", "annotator")
    sessions = Sessions(clock=lambda: now[0])
    name = sessions.make("study", ann, 60).id
    for _ in range(10):
        now[0] += 50
        assert sessions.get(name, ann).study == "study"
    now[0] += 61
    with pytest.raises(SessionExpired, match="is over"):
        sessions.get(name, ann)


def test_a_session_in_use_stays_and_who_makes_many_pushes_out_their_own(monkeypatch):
    monkeypatch.setattr(sessions_module, "MOST", 10)
    sessions, ann, bob = Sessions(), Person("ann", "annotator"), Person("bob", "annotator")
    first, second = (sessions.make("study", ann, 60).id for _ in range(2))
    many = [sessions.make("study", bob, 60).id for _ in range(20)]
    assert sessions.get(first, ann) and sessions.get(many[-1], bob)
    with pytest.raises(SessionExpired):
        sessions.get(many[0], bob)
    for _ in range(9):
        sessions.get(first, ann)  # the second is used no more
        sessions.make("study", ann, 60)
    assert sessions.get(first, ann) and sessions.get(many[-1], bob)
    with pytest.raises(SessionExpired):
        sessions.get(second, ann)


def test_a_token_file_keeps_its_readers_and_one_that_cannot_be_read_changes_nothing(tmp_path, monkeypatch):
    file = tmp_path / "tokens.txt"
    first = add_token(file, "ann", "annotator")
    file.chmod(0o640)
    add_token(file, "bob", "annotator")
    assert file.stat().st_mode & 0o777 == 0o640  # the server's own user may be in that group
    tokens = Tokens(file)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    file.write_text(file.read_text() + "\n")
    monkeypatch.setattr(Path, "read_text", denied)
    assert tokens.person(first).name == "ann" and tokens.person("wrong") is None


def test_what_else_stands_in_a_token_file_stays_as_it_is(tmp_path):
    file = tmp_path / "tokens.txt"
    add_token(file, "ann", "admin")
    before = f"# Dr. A, radiology, until 2026-12\r\n\n  {file.read_text()}# bob left".encode()
    file.write_bytes(before)
    add_token(file, "bob", "annotator")
    added = file.read_bytes().removeprefix(before + b"\n")
    assert added.startswith(b"bob annotator ") and added.count(b"\n") == 1
    revoke_token(file, "ann")
    assert file.read_bytes() == b"# Dr. A, radiology, until 2026-12\r\n\n# bob left\n" + added
    assert [person.name for person, _ in read_tokens(file)] == ["bob"]


def test_a_token_file_that_is_not_text_is_named(tmp_path):
    file = tmp_path / "tokens.txt"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AccessError, match=r"tokens\.txt is no token file"):
        Tokens(file)


def test_jobs_of_others_are_not_seen(guarded):
    volume, prompts = ball(14)
    with guarded.backend(guarded.tokens["ann"]) as backend:
        study = backend.open_study(volume)
        body = {"study": study, "prompts": prompts.to_json(), "model": "ellipsoid"}
        assert guarded.ask("POST", "/api/annotate?job=mine", guarded.tokens["ann"], json=body).status_code == 200
    assert guarded.ask("GET", "/api/jobs/mine", guarded.tokens["ann"]).json()["state"] == "done"
    assert guarded.ask("GET", "/api/jobs/mine", guarded.tokens["boss"]).status_code == 404


def test_no_page_of_another_site_may_ask(guarded):
    answer = guarded.ask("OPTIONS", "/api/models", guarded.tokens["ann"], headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_tls_protects_the_token_and_an_unknown_certificate_is_refused(tmp_path, monkeypatch):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "hospital.pem")
    tls = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with Server(tmp_path / "studies", *tls) as server:
        assert server.url.startswith("https://")
        transport = RequestsTransport(server.url, server.token, verify=str(tmp_path / "hospital.pem"))
        with RemoteBackend(transport) as good:
            assert good.models()
            trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "other.pem"))
            transport._session.trust_env = True  # as for a server elsewhere
            assert good.models()  # the file that was named comes before the environment's
        with pytest.raises(ConnectionLostError, match=r"certificate .* not trusted"):
            RemoteBackend(RequestsTransport(server.url, server.token)).models()


# The client's own care


def test_a_token_does_not_travel_unencrypted():
    with pytest.raises(AccessError, match="use https"):
        RequestsTransport("http://server.example:8000", token="secret")
    RequestsTransport("http://server.example:8000", token="secret", plain=True).close()


def test_over_tls_too_what_breaks_off_is_sent_again(tmp_path):
    authority, tries = trustme.CA(), []
    authority.cert_pem.write_to_path(tmp_path / "hospital.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def serve():
        for _ in range(len(AGAIN) + 1):
            connection, _ = listener.accept()
            tries.append(connection)
            with context.wrap_socket(connection, server_side=True) as line:
                line.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        transport = RequestsTransport(address, verify=str(tmp_path / "hospital.pem"), sleep=lambda _: None)
        with pytest.raises(ConnectionLostError) as error:
            transport.send(Request("PATCH", "/patient", bytes(10_000_000), seconds=20))
        serving.join()
        transport.close()
    assert len(tries) == len(AGAIN) + 1 and "patient" not in str(error.value)


def test_what_a_proxy_answers_while_the_server_starts_anew_is_waited_out():
    replies = [Reply(status, {}, b"<html>") for status in (502, 502, 200)]
    transport = RequestsTransport("http://127.0.0.1:1", sleep=lambda _: None)
    transport._once = lambda _request: replies.pop(0)
    assert transport.send(Request("GET", "/api/models")).status == 200
    with pytest.raises(ConnectionLostError, match=r"The proxy before the server answered 502: .* does not run"):
        check(Reply(502, {}, b"<html>"))
    with pytest.raises(ConnectionLostError, match="is its address that of an AIAssist server"):
        check(Reply(405, {}, b"<html>"))


def test_a_token_may_end_as_the_file_does_that_it_was_read_from(guarded):
    backend = RemoteBackend(guarded.url, guarded.tokens["ann"] + "\n")
    assert backend.models()
    with pytest.raises(AccessError, match="The token holds characters that no token has") as error:
        RemoteBackend(guarded.url, "ab\ncd")
    assert "cd" not in str(error.value)


def test_certificates_that_are_not_there_and_a_server_without_tls_are_said(server):
    with pytest.raises(AccessError, match=r"There is no file of certificates nope\.pem"):
        RequestsTransport("https://127.0.0.1:1", verify="nope.pem")
    with pytest.raises(ConnectionLostError, match="does not answer by TLS; check whether its address begins with http"):
        RemoteBackend(server.url.replace("http:", "https:")).models()


def test_an_address_that_is_none_or_does_not_answer_is_said():
    for address in ("ftp://server", "http://[::1", "http://server:99999", "http://server:port", "http://"):
        with pytest.raises(ConnectionLostError, match="is no address of a server; write it as https"):
            RequestsTransport(address)
    backend = RemoteBackend(RequestsTransport("http://127.0.0.1:1", sleep=lambda _: None))
    with pytest.raises(ConnectionLostError, match="does not answer"):
        backend.models()


def test_proxies_and_passwords_of_the_environment_are_not_used_for_this_computer(server, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login x password y\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with server.backend() as backend:
        assert backend.models()


def test_a_study_of_two_axes_is_refused():
    with pytest.raises(UploadError, match="three axes"):
        study_bytes({"shape": [1, 2], "dtype": "int16"})
