"""A client of the service, with the methods of a local `Vectorizer`; loads no torch.

http.py sends, conversation.py knows what to say without a network, served.py is a served model in place of a local one.
"""

from cir_vectorizer.client.conversation import Patience
from cir_vectorizer.client.http import AsyncClient, Client
from cir_vectorizer.client.served import ServedModel
from cir_vectorizer.errors import ServiceError
from cir_vectorizer.query.wire import Composed

__all__ = ["AsyncClient", "Client", "Composed", "Patience", "ServedModel", "ServiceError"]
