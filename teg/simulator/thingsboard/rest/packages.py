"""OTA packages over REST: describe one, upload its file, and let a device have it (`softwareId` of the device).

Source: ThingsBoard's OtaPackageController.
"""

import time
import uuid
from dataclasses import dataclass, replace
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from teg.simulator.thingsboard.ota_packages import Package, checksum
from teg.simulator.thingsboard.rest.bodies import PROFILE_ID, TENANT_ID, OrjsonResponse, entity, json_object, page_of
from teg.simulator.thingsboard.rest.errors import BAD_REQUEST, NOT_FOUND, ApiError, checked_id

_KINDS = {"SOFTWARE": "sw", "FIRMWARE": "fw"}


@dataclass(slots=True)
class Stored:
    id: str
    type: str
    created_ms: int
    package: Package
    file_name: str | None = None
    content_type: str | None = None


class Packages:
    def __init__(self) -> None:
        self._stored: dict[str, Stored] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/api/otaPackage", self.save_info, methods=["POST"]),
            Route("/api/otaPackage/info/{package_id}", self.info, methods=["GET"]),
            Route("/api/otaPackage/{package_id}", self.upload, methods=["POST"]),
            Route("/api/otaPackage/{package_id}", self.delete, methods=["DELETE"]),
            Route("/api/otaPackage/{package_id}/download", self.download, methods=["GET"]),
            Route("/api/otaPackages", self.find, methods=["GET"]),
        ]

    def package(self, identity: str, kind: str) -> Package:
        """For a device that is to have it."""
        stored = self._find(identity)
        if _KINDS[stored.type] != kind:
            raise ApiError(400, f"Can't assign {stored.type.lower()} as another type!", BAD_REQUEST)
        if stored.package.data is None and stored.package.url is None:
            raise ApiError(400, f"Can't assign {stored.type.lower()} with empty data!", BAD_REQUEST)
        return stored.package

    async def save_info(self, request: Request) -> Response:
        body = await json_object(request)
        kind, title, version = (body.get(name) for name in ("type", "title", "version"))
        if kind not in _KINDS or not title or not version:
            raise ApiError(400, "OtaPackage type, title and version should be specified!", BAD_REQUEST)
        if any((known.package.title, known.package.version) == (title, version) for known in self._stored.values()):
            raise ApiError(400, "OtaPackage with such title and version already exists!", BAD_REQUEST)
        fields = {name: body.get(name) for name in ("url", "tag", "checksum")}
        package = Package(title, version, None, algorithm=body.get("checksumAlgorithm"), **fields)
        stored = Stored(str(uuid.uuid1()), kind, time.time_ns() // 1_000_000, package)
        self._stored[stored.id] = stored
        return OrjsonResponse(_info(stored))

    async def upload(self, request: Request) -> Response:
        stored = self._find(request.path_params["package_id"])
        algorithm = request.query_params.get("checksumAlgorithm", "SHA256")
        async with request.form() as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise ApiError(400, "Required request part 'file' is not present", BAD_REQUEST)
            data = await file.read()
        text = request.query_params.get("checksum") or _checksum(algorithm, data)
        stored.package = replace(stored.package, data=data, algorithm=algorithm, checksum=text)
        stored.file_name, stored.content_type = file.filename, file.content_type
        return OrjsonResponse(_info(stored))

    async def info(self, request: Request) -> Response:
        return OrjsonResponse(_info(self._find(request.path_params["package_id"])))

    async def download(self, request: Request) -> Response:
        stored = self._find(request.path_params["package_id"])
        if stored.package.data is None:
            raise ApiError(400, "Can't download package with external URL!", BAD_REQUEST)
        return Response(stored.package.data, media_type=stored.content_type or "application/octet-stream")

    async def delete(self, request: Request) -> Response:
        del self._stored[self._find(request.path_params["package_id"]).id]
        return Response()

    async def find(self, request: Request) -> Response:
        wanted = request.query_params.get("textSearch", "").casefold()
        found = [stored for stored in self._stored.values() if wanted in stored.package.title.casefold()]
        return page_of([_info(stored) for stored in found], request)

    def _find(self, identity: str) -> Stored:
        wanted = checked_id(identity)
        if wanted not in self._stored:
            raise ApiError(404, f"OTA package with id [{wanted}] is not found", NOT_FOUND)
        return self._stored[wanted]


def _checksum(algorithm: str, data: bytes) -> str:
    try:
        return checksum(algorithm, data)
    except ValueError as error:
        raise ApiError(400, str(error), BAD_REQUEST) from error


def _info(stored: Stored) -> dict[str, Any]:
    package = stored.package
    return {
        "id": entity("OTA_PACKAGE", stored.id),
        "createdTime": stored.created_ms,
        "additionalInfo": None,
        "tenantId": entity("TENANT", TENANT_ID),
        "deviceProfileId": entity("DEVICE_PROFILE", PROFILE_ID),
        "type": stored.type,
        "title": package.title,
        "version": package.version,
        "tag": package.tag,
        "url": package.url,
        "hasData": package.data is not None,
        "fileName": stored.file_name,
        "contentType": stored.content_type,
        "checksumAlgorithm": package.algorithm,
        "checksum": package.checksum,
        "dataSize": None if package.data is None else len(package.data),
    }
