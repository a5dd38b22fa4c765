"""A client of the service, with the methods of a local `Vectorizer`; loads no torch.

http.py sends requests; conversation.py decides what to send, without a network; served.py puts a served model in the
place of a local one.
"""

from cir_vectorizer.client.conversation import Patience
from cir_vectorizer.client.http import AsyncClient, Client
from cir_vectorizer.client.served import ServedModel
from cir_vectorizer.errors import ServiceError
from cir_vectorizer.query.wire import Composed

__all__ = ["AsyncClient", "Client", "Composed", "Patience", "ServedModel", "ServiceError"]
