"""Add composed search to a Weaviate that runs already, whose collection holds CLIP vectors that your own program made.

1. Start the service with the model that made the vectors: `cir-vectorizer serve --model open_clip:…`.
2. Give Weaviate the module, and restart it: ENABLE_MODULES=…,multi2vec-clip, CLIP_INFERENCE_API=http://HOST:8000.
3. python examples/weaviate_existing_deployment.py --collection Shop --into ShopComposed --image-property photo

The collection is copied with its vectors, so no picture is encoded again. The copy has the module, so `near_text` composes.
"""

import click
import weaviate
from weaviate.classes.config import Configure, DataType, Property
from weaviate.collections import Collection

BATCH = 100


@click.command()
@click.option("--host", default="localhost", show_default=True, help="Where Weaviate listens.")
@click.option("--port", default=8080, show_default=True)
@click.option("--grpc-port", default=50051, show_default=True)
@click.option("--collection", "name", required=True, help="The collection with your vectors.")
@click.option("--into", required=True, help="Name of the copy.")
@click.option("--image-property", required=True, help="Blob property that new objects bring their picture in.")
def main(host: str, port: int, grpc_port: int, name: str, into: str, image_property: str) -> None:
    """Copy a collection, vectors included, to one that Weaviate's CLIP module searches."""
    with weaviate.connect_to_local(host, port, grpc_port) as client:
        if "multi2vec-clip" not in client.get_meta()["modules"]:
            raise click.ClickException(
                "this Weaviate has no module multi2vec-clip; start it with ENABLE_MODULES=multi2vec-clip and "
                "CLIP_INFERENCE_API=http://HOST:8000"
            )
        source = client.collections.get(name)
        properties = [
            Property(name=each.name, data_type=each.data_type)
            for each in source.config.get().properties
            if each.name != image_property
        ]
        target = client.collections.create(
            into,
            properties=[*properties, Property(name=image_property, data_type=DataType.BLOB)],
            vector_config=Configure.Vectors.multi2vec_clip(image_fields=[image_property]),
        )
        count = copy(source, target)
        click.echo(f"{count:,} objects copied into {into} with their vectors; search it with near_text")


def copy(source: Collection, target: Collection) -> int:
    """Copy all objects with ids, properties and vectors; return their number."""
    count = 0
    with target.batch.fixed_size(BATCH) as batch:
        for each in source.iterator(include_vector=True):
            vectors = each.vector
            vector = vectors["default"] if isinstance(vectors, dict) else vectors
            batch.add_object(properties=dict(each.properties), uuid=each.uuid, vector=vector)
            count += 1
    if target.batch.failed_objects:
        first = target.batch.failed_objects[0]
        raise click.ClickException(f"{len(target.batch.failed_objects)} objects were refused: {first.message}")
    return count


if __name__ == "__main__":
    main()
