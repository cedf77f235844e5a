variable "grid" {
  description = "Name of the grid."
  type        = string
}

variable "region" {
  description = "Region that the dashboard shows."
  type        = string
}

variable "functions" {
  description = "Names of the Lambdas, by what they do."
  type        = map(string)
}

variable "api_id" {
  description = "Id of the API."
  type        = string
}

variable "table" {
  description = "Name of the table."
  type        = string
}

variable "dead" {
  description = "Names of the queues of dead letters."
  type        = map(string)
}

variable "queues" {
  description = "Names of the other queues."
  type        = list(string)
}

variable "dashboard" {
  description = "Whether there is a dashboard."
  type        = bool
}

variable "alarms" {
  description = "Whether there are alarms."
  type        = bool
}

variable "email" {
  description = "Who is told of alarms; empty for nobody."
  type        = string
}
