"use strict";

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null, // else Swagger UI sends the document's address to a validator on the internet
});
