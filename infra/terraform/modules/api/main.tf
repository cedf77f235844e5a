# The API. Who calls it signs with IAM; there is no other way in, and no browser's either: CORS is off.

locals {
  lambdas = { submit = var.submit, read = var.read }
  # Reads of results; shared/http/src/routes.rs has the table of routes, and a test compares them. The router behind `submit`
  # answers all else, with 404 where there is nothing.
  routes = merge(
    { for route in [
      "GET /v1/jobs/{job}/results", "POST /v1/jobs/{job}/results", "GET /v1/jobs/{job}/results.ndjson", "GET /v1/jobs/{job}/progress",
    ] : route => "read" },
    { "ANY /{proxy+}" = "submit" },
  )
}

resource "aws_apigatewayv2_api" "this" {
  name          = var.grid
  description   = "The grid ${var.grid}"
  protocol_type = "HTTP"
}

resource "aws_apigatewayv2_integration" "this" {
  for_each = local.lambdas

  api_id                 = aws_apigatewayv2_api.this.id
  integration_type       = "AWS_PROXY"
  integration_uri        = each.value.invoke_arn
  payload_format_version = "2.0"
  timeout_milliseconds   = 30000
}

resource "aws_apigatewayv2_route" "this" {
  for_each = local.routes

  api_id             = aws_apigatewayv2_api.this.id
  route_key          = each.key
  authorization_type = "AWS_IAM"
  target             = "integrations/${aws_apigatewayv2_integration.this[each.value].id}"
}

resource "aws_cloudwatch_log_group" "access" {
  #checkov:skip=CKV_AWS_158:Access logs hold no payloads and no credentials; CloudWatch encrypts them with a key of its own
  #checkov:skip=CKV_AWS_338:How long logs are worth their price is the customer's to say: log_retention_days
  name              = "/aws/apigateway/${var.grid}"
  retention_in_days = var.log_retention_days
}

resource "aws_apigatewayv2_stage" "this" {
  api_id      = aws_apigatewayv2_api.this.id
  name        = "$default"
  auto_deploy = true

  default_route_settings {
    throttling_rate_limit    = var.rate
    throttling_burst_limit   = var.burst
    detailed_metrics_enabled = false
  }

  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.access.arn
    format = jsonencode({
      time      = "$context.requestTimeEpoch"
      request   = "$context.requestId"
      method    = "$context.httpMethod"
      path      = "$context.path"
      status    = "$context.status"
      bytes     = "$context.responseLength"
      ms        = "$context.responseLatency"
      lambda_ms = "$context.integrationLatency"
      caller    = "$context.identity.userArn"
      error     = "$context.error.message"
    })
  }
}

resource "aws_lambda_permission" "api" {
  for_each = local.lambdas

  statement_id  = "api"
  action        = "lambda:InvokeFunction"
  function_name = each.value.name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.this.execution_arn}/*/*"
}
