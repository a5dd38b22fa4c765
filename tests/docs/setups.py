"""Collections that pages take for granted, for hidden blocks: they run in a page's folder."""

import base64
import csv
from pathlib import Path
from uuid import UUID

import weaviate
from qdrant_client import QdrantClient, models
from weaviate.classes.config import Configure, DataType, Property

import cir_vectorizer


def qdrant_of_another_program(name: str, port: int) -> None:
    """Replace a collection by one that another program filled with CLIP vectors; its ids are the catalog's numbers."""
    with Path("catalog.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    files = [Path(row["file"]).absolute() for row in rows]
    vectors = cir_vectorizer.load("tiny").embed_images(files)
    client = QdrantClient(url=f"http://127.0.0.1:{port}", check_compatibility=False)
    client.delete_collection(name)
    size = vectors.shape[1]
    client.create_collection(name, vectors_config=models.VectorParams(size=size, distance=models.Distance.COSINE))
    points = [
        models.PointStruct(
            id=int(row["id"]), vector=vector.tolist(), payload={"file": str(file), "title": row["title"]}
        )
        for row, file, vector in zip(rows, files, vectors, strict=True)
    ]
    client.upsert(name, points, wait=True)
    client.close()


def weaviate_of_another_program(name: str, port: int, grpc_port: int) -> None:
    """Replace a collection by one that holds its pictures itself, and whose server makes the vectors."""
    with weaviate.connect_to_local(port=port, grpc_port=grpc_port) as client:
        client.collections.delete(name)
        shop = client.collections.create(
            name,
            properties=[Property(name="photo", data_type=DataType.BLOB)],
            vector_config=Configure.Vectors.multi2vec_clip(image_fields=["photo"]),
        )
        for number, photo in enumerate(sorted(Path("photos").glob("*.jpg"))[:5], 1):
            shop.data.insert({"photo": base64.b64encode(photo.read_bytes()).decode()}, uuid=UUID(int=number))
